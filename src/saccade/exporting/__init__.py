"""From a module to a file for another runtime: one file a target. The proof that it answers the same is evaluation's."""
