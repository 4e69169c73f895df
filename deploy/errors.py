"""What can go wrong on the workstation while a bundle is made."""

from edge_mdda.errors import EdgeMddaError


class DeployError(EdgeMddaError):
    """A bundle that cannot be made; the message names the board and what to do."""
