//! Descriptor sets as they are kept with a release.
use anyhow::{Context, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

/// A descriptor set without its comments, options kept: for a release's record, which compares and does not explain.
///
/// # Errors
/// Bytes that are not a descriptor set, or one without `google/protobuf/descriptor.proto`.
pub fn without_comments(bytes: &[u8]) -> Result<Vec<u8>> {
    let pool = DescriptorPool::decode(bytes)?;
    // Read as a message of the set itself: options that are extensions survive that, and only that.
    let descriptor =
        pool.get_message_by_name("google.protobuf.FileDescriptorSet").context("descriptor.proto is missing")?;
    let mut set = DynamicMessage::decode(descriptor, bytes)?;
    if let Some(Value::List(files)) = set.get_field_by_name_mut("file") {
        for file in files {
            if let Value::Message(file) = file {
                file.clear_field_by_name("source_code_info");
            }
        }
    }
    Ok(set.encode_to_vec())
}
