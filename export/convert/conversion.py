"""One source becomes verified files: calibrate, convert, audit, run, compare, and only then write.

Nothing is written before every check of a format has passed, and then the model comes last, so that a model
file without its manifest and report never lies about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edge_mdda import __version__
from edge_mdda.classifier import Classifier, Manifest
from edge_mdda.classifier.manifest import EMBEDDED_KEY, embedded_text
from edge_mdda.classifier.tensors import to_input, with_temperature
from edge_mdda.errors import EdgeMddaError
from export.calibration import Views, operating_point
from export.convert import audit, elsewhere, graphs, parity, report, sanity, writing
from export.convert.formats import Format
from export.convert.pictures import (
    Pictures,
    calibration_and_rest,
    decode_to,
    digest,
    is_data_set,
    labelled,
    limited,
    list_folder,
    purified,
    split_of,
    without,
)
from export.convert.quantise import FLOAT_FIRST_CONVOLUTIONS, int8_onnx
from export.convert.request import Judged, Request
from export.convert.sources import Source
from export.errors import ExportError

SAME = 1e-6  # of a probability: what rounding to float32 twice leaves


class Conversion:
    """One source, its pictures, and the formats made from it."""

    def __init__(self, source: Source, request: Request, say: Callable[[str], None] = lambda _: None) -> None:
        self.source, self.request, self.say = source, request, say
        self.labels = tuple(source.labels)
        self.seen, rest = calibration_and_rest(
            request.calibration, request.calibration_images, request.seed, self.labels
        )
        seen = {digest(path) for path in self.seen.paths}
        judges = limited(without(self._judges(rest), seen), request.max_images, request.seed)
        if len(judges) < request.gates.min_images:
            raise ExportError(
                f"{len(judges)} images to judge by that calibration did not see, fewer than --min-images "
                f"{request.gates.min_images}; name more with --verify DIR"
            )
        for warning in source.warnings:
            self.say(f"warning: {warning}")
        sanity.check_classes(judges.targets, self.labels, judges.name)
        self.calibration_sha256 = hashlib.sha256("".join(map(digest, self.seen.paths)).encode()).hexdigest()
        self.calibration_pixels = self._calibration_pixels()
        self.judged = self._judge(judges)
        sanity.check_answers(source, self.judged, self.say)
        self.val = self._val()
        self.elsewhere = self._elsewhere()

    def _judges(self, rest: Pictures) -> Pictures:
        request = self.request
        if request.verification_labels is not None:
            folder = request.verification or request.calibration
            return labelled(folder, request.verification_labels, self.labels)
        folder = request.verification or request.calibration
        if is_data_set(folder):
            return split_of(folder, request.split, self.labels)
        return list_folder(folder) if request.verification else rest

    def _decode(self, pictures: Pictures) -> np.ndarray:
        return decode_to(pictures, self.source.height, self.source.width, self.source.crop)

    def _calibration_pixels(self) -> np.ndarray:
        images = self._decode(self.seen)
        if self.request.purify != "off":
            images[1::2] = purified(images[1::2], self.seen.paths[1::2], self.request.seed)
        return images

    def _judge(self, pictures: Pictures, purify: str | None = None) -> Judged:
        purify = purify or self.request.purify
        raw = self._decode(pictures)
        views = {} if purify == "on" else {"raw": raw}
        if purify != "off":
            views["purified"] = purified(raw, pictures.paths, self.request.seed)
        self.say(f"{self.source.name} ({self.source.kind}) on {len(pictures)} images ({pictures.name})")
        answers = {
            name: parity.to_probabilities(self.source.predict(images), self.source.output)
            for name, images in views.items()
        }
        return Judged(pictures, views, answers)

    def _val(self) -> Judged | None:
        """Both views of ``val``, which chooses the thresholds; None where there is no such split."""
        request = self.request
        if request.refer_at is not None or request.purify != "both" or not is_data_set(request.calibration):
            return None
        try:
            pictures = split_of(request.calibration, "val", self.labels)
        except EdgeMddaError:
            return None
        columns = [self.labels.index(label) for label in self.source.malignant]
        if pictures.targets is None or not np.isin(pictures.targets, columns).any():
            return None
        raw = self._decode(pictures)
        return Judged(pictures, {"raw": raw, "purified": purified(raw, pictures.paths, request.seed)}, {})

    def _elsewhere(self) -> list[elsewhere.Source]:
        """Labelled pictures of other clinics; nothing where nothing is chosen."""
        if self.val is None:
            return []
        size = self.source.height, self.source.width, self.source.crop
        malignant = frozenset(self.source.malignant)
        return [elsewhere.read(folder, size, malignant, self.request.seed) for folder in self.request.sources]

    def _float_layers(self, target: Format) -> int:
        """How many layers may compute in float: with the first ones, TFLite's last one does."""
        first = self._float_first(target)
        return first + 1 if first and target.is_tflite else first

    def _float_first(self, target: Format) -> int:
        if target.precision != "int8" or (target.is_tflite and self.source.ranges is None):
            return 0
        default = FLOAT_FIRST_CONVOLUTIONS if self.source.ranges is None else self.source.float_layers
        return default if self.request.float_first is None or target.is_tflite else self.request.float_first

    def _feeds(self, draft: Manifest, target: Format) -> Iterator[np.ndarray]:
        dtype = np.uint8 if target.input == "uint8" else np.float32
        return (to_input(image, draft, dtype) for image in self.calibration_pixels)

    def _make(self, target: Format, draft: Manifest) -> tuple[bytes, dict[str, str]]:
        """The file's bytes, and the versions of the tools that made it."""
        import onnx
        import onnxruntime

        core, request = self.source.core, self.request
        if target.is_tflite:
            from export.convert import tflite

            pixels = self.calibration_pixels if target.precision == "int8" else None
            ranges = self.source.ranges if pixels is not None else None
            if pixels is not None and ranges is not None:
                if request.weight_scale != "minmax":
                    raise ExportError("--weight-scale octav does not keep the grid that this checkpoint was fitted to")
                pixels = np.stack([np.full_like(pixels[0], value) for value in (0, 255)])  # only the input is left
            return tflite.convert(
                core, pixels, request.weight_scale, request.tflite_env, ranges, self._float_first(target)
            )
        versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        if target.precision == "fp16":
            return graphs.to_fp16(core).SerializeToString(), versions
        model = graphs.with_pixels(core) if target.input == "uint8" else core
        if target.precision == "fp32":
            return model.SerializeToString(), versions
        quantised = int8_onnx(
            model,
            self._feeds(draft, target),
            symmetric=target.symmetric,
            float_first=self._float_first(target),
            ranges=self.source.ranges,
        )
        return graphs.standard_only(quantised).SerializeToString(), versions

    def _draft(self, target: Format) -> Manifest:
        source, request = self.source, self.request
        takes = "float32" if target.is_tflite and self._float_first(target) else target.input
        where = "the runtime quantises the pixels; " if takes == "int8" else ""
        path, _ = writing.place(source, request, target)
        return Manifest(
            name=path.stem,
            version=__version__,
            file=path.name,
            sha256="0" * 64,
            labels=source.labels,
            malignant=source.malignant,
            height=source.height,
            width=source.width,
            layout=target.layout,
            crop=source.crop,
            mean=0.0,
            std=1.0,
            output=source.output,
            refer_at=0.5 if request.refer_at is None else request.refer_at,
            retake_at=0.5 if request.retake_at is None else request.retake_at,
            chosen_by="not chosen" if request.refer_at is None else f"given by hand: {request.command}",
            training_data=source.training_data,
            licence=source.licence,
            notes="A referral aid, never a diagnosis.",
            target=target.name,
            preprocessing=f"input {takes} {target.layout}, RGB 0..255; {where}{source.preprocessing}",
            calibration_sha256=self.calibration_sha256 if target.precision == "int8" else "",
            training_command=source.training_command,
        )

    def _with_thresholds(self, draft: Manifest, classifier: Classifier, judged: dict[str, np.ndarray]) -> Manifest:
        """The manifest with what ``val`` chose; ``judged`` are this file's answers to the judging images."""
        if self.val is None:
            return draft
        chosen = {view: parity.predict(classifier, images) for view, images in self.val.views.items()}
        judges = self.judged.pictures if set(judged) == set(chosen) else None
        others = [elsewhere.answer(source, classifier, self._columns) for source in self.elsewhere]
        temperature, refer_at, retake_at, record = operating_point(
            self._views(chosen, self.val.pictures),
            None if judges is None or judges.targets is None else self._views(judged, judges),
            self.judged.pictures.name,
            others,
        )
        return replace(
            draft,
            temperature=temperature,
            refer_at=refer_at,
            retake_at=retake_at,
            chosen_by=self.request.command,
            operating_point=record,
        )

    @property
    def _columns(self) -> tuple[int, ...]:
        return tuple(self.labels.index(label) for label in self.source.malignant)

    def _views(self, answers: dict[str, np.ndarray], pictures: Pictures) -> Views:
        assert pictures.targets is not None
        return Views(answers["raw"], answers["purified"], pictures.targets, self._columns)

    def convert(self, target: Format) -> dict[str, Any]:
        """Make, check and write one format; returns its report.

        Raises
        ------
        ExportError
            A check failed; nothing was written.
        """
        draft = self._draft(target)
        self.say(f"{target.name}: converting")
        content, versions = self._make(target, draft)
        found = audit.audit(content, target.suffix)
        audit.check(found, target, self._float_layers(target))
        self.say(f"{target.name}: {audit.as_line(found)}")
        classifier = parity.open_bytes(content, draft, target)
        answers = {view: parity.predict(classifier, images) for view, images in self.judged.views.items()}
        figures = {
            view: parity.compare(self.judged.answers[view], found_there, self.judged.pictures.targets, self.labels)
            for view, found_there in answers.items()
        }
        for view, values in figures.items():
            self.say(f"{target.name}, {view}: {parity.as_line(values)}")
        limits = self.request.gates.of(target)
        causes = [c for view, values in figures.items() for c in parity.failures(values, len(content), limits, view)]
        if causes:
            raise ExportError("; ".join(dict.fromkeys(causes)))
        manifest = self._with_thresholds(draft, classifier, answers)
        # The view that kept least stands at the top of the report.
        view = min(figures, key=lambda name: figures[name]["argmax_agreement"] or 0.0)
        manifest = replace(
            manifest, metrics={"view": view, "images": len(self.judged.pictures)} | report.plain(figures[view])
        )
        if not target.is_tflite:
            content = graphs.with_metadata(content, EMBEDDED_KEY, embedded_text(manifest))
        manifest = replace(manifest, sha256=hashlib.sha256(content).hexdigest())
        final = parity.open_bytes(content, manifest, target)
        image = self.judged.views[view][0]
        wanted = with_temperature(answers[view][:1], manifest.temperature)
        if not np.allclose(final.predict(image[None]), wanted, rtol=0, atol=SAME):
            raise ExportError("the finished file answers otherwise than the one that was checked")
        result = writing.report_of(
            self.source,
            self.request,
            self.judged,
            len(self.seen),
            target,
            manifest,
            figures,
            view,
            found,
            limits,
            versions,
            final.runtime,
        ) | {
            "size_bytes": len(content),
            "median_ms": parity.median_ms(final.predict, image),
        }
        path, prefix = writing.place(self.source, self.request, target)
        writing.write(path, prefix, content, manifest, result)
        self.say(str(path))
        return result
