"""The tables of the station's records, one script a version. A script that was released is never changed."""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    # 1
    """
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE patients (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        own_id TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(own_id) BETWEEN 1 AND 64),
        name TEXT NOT NULL DEFAULT '' CHECK (length(name) <= 200),
        birth_year INTEGER CHECK (birth_year BETWEEN 1850 AND 2200),
        sex TEXT NOT NULL CHECK (sex IN ('female', 'male', 'other', 'unknown')),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX patients_by_name ON patients (name COLLATE NOCASE);

    CREATE TABLE patient_changes (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        patient TEXT NOT NULL REFERENCES patients (id),
        before TEXT NOT NULL CHECK (json_valid(before)),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX patient_changes_by_patient ON patient_changes (patient);

    CREATE TABLE lesions (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        patient TEXT NOT NULL REFERENCES patients (id),
        number INTEGER NOT NULL,
        site TEXT NOT NULL,
        note TEXT NOT NULL DEFAULT '' CHECK (length(note) <= 1000),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL,
        UNIQUE (patient, number)
    ) STRICT;

    CREATE TABLE visits (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        patient TEXT NOT NULL REFERENCES patients (id),
        day TEXT NOT NULL,
        clock_sure INTEGER NOT NULL CHECK (clock_sure IN (0, 1)),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL,
        UNIQUE (patient, day)
    ) STRICT;
    CREATE INDEX visits_by_day ON visits (day);

    CREATE TABLE files (
        sha256 TEXT PRIMARY KEY CHECK (length(sha256) = 64),
        bytes INTEGER NOT NULL CHECK (bytes > 0),
        media_type TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE pictures (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        lesion TEXT NOT NULL REFERENCES lesions (id),
        visit TEXT NOT NULL REFERENCES visits (id),
        file TEXT NOT NULL REFERENCES files (sha256),
        source TEXT NOT NULL CHECK (source IN ('file', 'browser', 'camera', 'api', 'drawn')),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL,
        UNIQUE (visit, lesion, file)
    ) STRICT;
    CREATE INDEX pictures_by_lesion ON pictures (lesion, made_at);

    CREATE TABLE screenings (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        picture TEXT NOT NULL REFERENCES pictures (id),
        answer TEXT NOT NULL CHECK (json_valid(answer)),
        advice TEXT NOT NULL CHECK (advice IN ('refer', 'retake', 'routine')),
        malignant REAL NOT NULL CHECK (malignant BETWEEN 0 AND 1),
        model TEXT NOT NULL, model_sha256 TEXT NOT NULL, version TEXT NOT NULL, seed TEXT,
        names TEXT NOT NULL CHECK (json_valid(names)),
        raw_view TEXT NOT NULL REFERENCES files (sha256),
        purified_view TEXT REFERENCES files (sha256),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX screenings_by_picture ON screenings (picture, made_at);

    CREATE TABLE decisions (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        picture TEXT NOT NULL REFERENCES pictures (id),
        action TEXT NOT NULL CHECK (action IN ('referred', 'biopsy', 'follow-up', 'retake', 'none')),
        note TEXT NOT NULL DEFAULT '' CHECK (length(note) <= 2000),
        clinician TEXT NOT NULL CHECK (length(clinician) BETWEEN 1 AND 200),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX decisions_by_picture ON decisions (picture, made_at);

    CREATE TABLE outcomes (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        lesion TEXT NOT NULL REFERENCES lesions (id),
        diagnosis TEXT NOT NULL CHECK (length(diagnosis) BETWEEN 1 AND 500),
        basis TEXT NOT NULL CHECK (basis IN ('histology', 'follow-up', 'expert')),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX outcomes_by_lesion ON outcomes (lesion, made_at);

    CREATE TABLE withdrawals (
        picture TEXT PRIMARY KEY REFERENCES pictures (id),
        reason TEXT NOT NULL CHECK (length(reason) BETWEEN 3 AND 500),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;

    CREATE TABLE undecided (
        number INTEGER PRIMARY KEY, picture TEXT NOT NULL UNIQUE REFERENCES pictures (id)
    ) STRICT;
    CREATE TRIGGER refer_is_undecided AFTER INSERT ON screenings
    WHEN new.advice = 'refer'
        AND NOT EXISTS (SELECT 1 FROM decisions WHERE picture = new.picture)
        AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE picture = new.picture)
    BEGIN INSERT OR IGNORE INTO undecided (picture) VALUES (new.picture); END;
    CREATE TRIGGER another_answer AFTER INSERT ON screenings WHEN new.advice <> 'refer'
    BEGIN DELETE FROM undecided WHERE picture = new.picture; END;
    CREATE TRIGGER decided AFTER INSERT ON decisions
    BEGIN DELETE FROM undecided WHERE picture = new.picture; END;
    CREATE TRIGGER withdrawn AFTER INSERT ON withdrawals
    BEGIN DELETE FROM undecided WHERE picture = new.picture; END;

    CREATE TABLE users (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        name TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 64),
        role TEXT NOT NULL CHECK (role IN ('operator', 'clinician', 'admin')),
        pin TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;

    CREATE TABLE devices (
        id TEXT PRIMARY KEY CHECK (length(id) = 16),
        name TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 64),
        token TEXT NOT NULL UNIQUE CHECK (length(token) = 64),
        active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
        made_at TEXT NOT NULL, made_by TEXT NOT NULL
    ) STRICT;

    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        at TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, about TEXT NOT NULL, detail TEXT NOT NULL,
        before TEXT NOT NULL CHECK (length(before) = 64),
        hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64)
    ) STRICT;
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE (ABORT, 'the audit log only grows'); END;
    CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
    BEGIN SELECT RAISE (ABORT, 'the audit log only grows'); END;
    """,
)
"""``PRAGMA user_version`` counts how many of them have run."""
