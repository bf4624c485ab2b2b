"""The Pulumi program: a planned topology becomes the resources of its platform."""
