"""What a metric appends to its results for a clip that it leaves out."""

# Every sample must leave one entry: mmengine drops the duplicates of distributed sampling by position. The entry must
# not be None, because mmengine drops those first, and the duplicates then move up into their places.
SUBSTITUTED = 'substituted'
