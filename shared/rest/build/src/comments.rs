//! The comments of a contract, which are its documentation.
use std::collections::HashMap;

use prost_reflect::FileDescriptor;

/// Comments by the path of what they are about, as `SourceCodeInfo` has it.
pub struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    /// Reads the comments of files.
    pub fn read(files: impl Iterator<Item = FileDescriptor>) -> Self {
        let mut comments = HashMap::new();
        for file in files {
            let Some(info) = &file.file_descriptor_proto().source_code_info else { continue };
            for location in &info.location {
                let text = clean(location.leading_comments());
                if !text.is_empty() {
                    comments.insert((file.name().to_owned(), location.path.clone()), text);
                }
            }
        }
        Comments(comments)
    }

    /// The comment above a descriptor; empty when there is none.
    #[must_use]
    pub fn of(&self, file: &FileDescriptor, path: &[i32]) -> &str {
        self.0.get(&(file.name().to_owned(), path.to_vec())).map_or("", String::as_str)
    }
}

/// Takes the indentation and the line breaks within paragraphs away.
fn clean(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n");
    let joined = paragraphs.map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    joined.collect::<Vec<_>>().join("\n\n")
}

/// The first sentence, for titles.
#[must_use]
pub fn first_sentence(text: &str) -> &str {
    let end = text.find(". ").or_else(|| text.find(".\n")).unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}
