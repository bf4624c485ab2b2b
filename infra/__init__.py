"""From a stack file to what is deployed: settings, topology, invariants, and the Pulumi program."""
