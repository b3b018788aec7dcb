"""THE TABLE of device and author verbs: name, "module:command", help. A row without a command opens a group."""

VERBS = (
    ("nucleus", "", "The device daemon."),
    ("nucleus run", "nucleus.cli.nucleus_run:run", "Runs the nucleus of one device until it is told to stop."),
    ("logs", "nucleus.cli.logs:logs", "Shows the log of a component, or of the nucleus itself, on this device."),
    ("dev", "nucleus.cli.dev:dev", "Redeploys a component locally whenever one of its files is saved."),
    ("component", "", "Write, check, publish and look at components."),
    ("component lint", "nucleus.cli.component_lint:lint", "Finds all mistakes in recipes, with file, line and key."),
    ("component list", "nucleus.cli.component:list_components", "Lists the components installed on this device."),
    ("component details", "nucleus.cli.component:details", "Shows one component of this device."),
    ("component restart", "nucleus.cli.component:restart", "Restarts components of this device."),
    ("component stop", "nucleus.cli.component:stop", "Stops components of this device."),
    ("deployment", "", "Local deployments of this device."),
    ("deployment create", "nucleus.cli.deployment:create", "Deploys local recipes and artifacts on this device."),
    ("deployment status", "nucleus.cli.deployment:status", "Shows how a local deployment stands."),
    ("deployment list", "nucleus.cli.deployment:list_deployments", "Lists the local deployments of this device."),
)
