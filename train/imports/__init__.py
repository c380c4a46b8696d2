"""Published sets of fundus photographs, turned into data sets of the contract."""
