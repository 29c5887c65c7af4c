//! The model room against servers: hostile ones of our own, and `@copilotkit/aimock`, which nobody here wrote.

mod aimock;
mod choosing;
mod hostile;
mod json;
mod script;
mod support;
mod wires;
