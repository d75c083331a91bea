"""What all pipelines share: shards, datasets, commit, ledger, runners, configuration, the command line."""
