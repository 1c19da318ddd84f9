"""What is wrong with a data set, or worth a look: everything at once, as findings; nothing is changed in the data."""
