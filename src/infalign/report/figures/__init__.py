"""The figures of a report, each drawn wide and narrow, with alt text and the numbers behind it.

Every module has `draw`, which gives a matplotlib figure, and `alt`, which says it in numbers.
"""
