"""Claim: what a policy wins that is decoded otherwise than it was trained for is foreseen."""
