"""Images: decoding, resizing, thumbnails, signals and hashes, in pure functions."""
