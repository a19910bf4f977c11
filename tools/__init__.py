"""Commands that read finished builds."""
