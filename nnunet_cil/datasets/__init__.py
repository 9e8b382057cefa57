"""From a raw download to nnU-Net's raw data set, one module a source."""
