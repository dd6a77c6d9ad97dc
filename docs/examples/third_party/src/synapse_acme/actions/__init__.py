"""The action plugin `acme`; its `config.yaml` names the actions."""
