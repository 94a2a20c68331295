//! Kinds of pools.

pub mod directory;
mod files;
pub mod lvm;
mod qemu_img;
