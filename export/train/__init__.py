"""Train lesion classifiers, plain or under attack, and fit them to int8."""
