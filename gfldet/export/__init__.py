"""Export: a model becomes a file that other programs can run; the file is compared with torch before it is written."""
