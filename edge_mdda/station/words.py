"""What the station says on its pages and on paper alike. Nothing heavy is imported here."""

from __future__ import annotations

ADVICE = {"refer": "REFER", "retake": "RETAKE", "routine": "no sign that asks for referral"}
LIMITS_TEXT = (
    "In other clinics it misses more: of 307 malignant lesions of the official ISIC 2018 test set 15 got no sign"
    " (5 %), of 519 melanomas of an older ISIC archive 127 (24 %). Darker skin is hardly in its training data."
    " A lesion that changes is referred whatever this says."
)
