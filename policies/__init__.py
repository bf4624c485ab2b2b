"""What must never be deployed: rules over the resources of a stack, for Pulumi's engine and without it."""
