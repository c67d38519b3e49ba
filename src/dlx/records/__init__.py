"""Records of trials and studies: their schema, and how they are written, read, archived and merged."""
