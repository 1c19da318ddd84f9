"""What was found, as labels for programs in which people correct them: Label Studio, CVAT, readers of data sets."""
