"""The commands of the Hugging Face hub: ``sqn-push`` and ``sqn-pull``."""
