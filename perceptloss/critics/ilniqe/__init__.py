"""IL-NIQE: features, and their distance from those of pristine photographs."""
