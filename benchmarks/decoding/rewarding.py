"""The reward that every chain here walks by: free, so that what is measured is the engine."""

__all__ = ["variety"]


def variety(text: str) -> float:
    """Distinct words by words, 0 where there are none."""
    words = text.split()
    return len(set(words)) / len(words) if words else 0.0
