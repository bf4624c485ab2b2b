"""The pure core: what a stack may say, and all that follows from it. No Pulumi, no Superset, no clients, no clock."""
