"""Label formats: files on disk -> `RawImage`s, a module a format."""
