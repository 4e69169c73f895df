"""How long a screening takes on this board: measuring, percentiles, reports."""
