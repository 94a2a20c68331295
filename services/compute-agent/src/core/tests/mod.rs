mod decide;
mod disks;
mod fake;
mod service;
