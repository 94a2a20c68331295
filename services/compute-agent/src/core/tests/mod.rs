mod decide;
mod fake;
mod service;
