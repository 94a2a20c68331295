//! Kinds of pools.

pub mod directory;
mod files;
mod incoming;
pub mod lvm;
mod qemu_img;
