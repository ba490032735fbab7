"""Where prompts come from; deterministic splits.

A prompt is plain text or a list of chat messages. Its id is a hash of its content, so the same
prompt is the same row in every file, store and report, whatever its place in a list.

Which side of the train/test split a prompt falls on depends on that id and the seed alone: not on
the order of the file, nor on how the file was written. A prompt that stands in a file twice would
put the same question on both sides; repeats are therefore left out, and a warning says how many.
"""

from infalign.prompts.prompt import Message, Prompt, render_prompts, split_prompts
from infalign.prompts.reading import load_prompts, prompts_from_lines

__all__ = [
    "Message",
    "Prompt",
    "load_prompts",
    "prompts_from_lines",
    "render_prompts",
    "split_prompts",
]
