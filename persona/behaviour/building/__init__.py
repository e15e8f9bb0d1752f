"""From a graph to a personality: the plan of a build, the work, and what came of it."""
