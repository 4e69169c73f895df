"""Tasks that wait for one another: in order, on every thread, and none after a failure."""

from __future__ import annotations

import threading
import time

import pytest

from edge_mdda.mdda.task_pool import Task, TaskPool


@pytest.fixture(params=[1, 2, 4])
def pool(request):
    made = TaskPool([f"tool {n}" for n in range(request.param)])
    yield made
    made.close()


def diamond(log: list[str]) -> list[Task]:
    """Rows of three tasks, each of which needs its neighbours in the row above."""

    def work(row: int, column: int):
        def run(order: str, tool: str) -> None:
            assert order == "the order" and tool.startswith("tool ")
            if column == 1:
                time.sleep(0.001)  # lets the others overtake, if they may
            log.append(f"{row}{column}")

        return run

    tasks = []
    for row in range(6):
        for column in range(3):
            near = [c for c in (column - 1, column, column + 1) if 0 <= c < 3]
            tasks.append(Task(work(row, column), tuple(3 * (row - 1) + c for c in near) if row else ()))
    return tasks


def test_every_task_is_done_once_and_after_its_needs(pool):
    for _ in range(20):
        log: list[str] = []
        tasks = diamond(log)
        pool.run(tasks, "the order")
        assert sorted(log) == sorted(f"{row}{column}" for row in range(6) for column in range(3))
        for index, task in enumerate(tasks):
            row, column = divmod(index, 3)
            for need in task.needs:
                assert log.index(f"{need // 3}{need % 3}") < log.index(f"{row}{column}")


def test_several_threads_really_work_at_the_same_time():
    pool = TaskPool([0, 1])
    meeting = threading.Barrier(2, timeout=10)  # two tasks that can only end together
    pool.run([Task(lambda order, tool: meeting.wait(), ()) for _ in range(2)], None)
    pool.close()


def test_a_failure_is_raised_and_nothing_begins_after_it(pool):
    done: list[int] = []

    def fail(order: object, tool: object) -> None:
        raise ZeroDivisionError("on purpose")

    tasks = [Task(fail, ()), *(Task(lambda order, tool: done.append(1), (0,)) for _ in range(5))]
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        pool.run(tasks, None)
    assert not done
    pool.run([Task(lambda order, tool: done.append(2), ())], None)  # it is still fit for work
    assert done == [2]


def test_nothing_to_do(pool):
    pool.run([], None)
