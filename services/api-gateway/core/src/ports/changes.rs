//! What changed among rows.

/// A row that was written, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<R> {
    /// The row as it is now.
    pub row: R,
    /// The revision of the transaction that last wrote it.
    pub revision: u64,
    /// The revision of the transaction that made it; 0 where that was before revisions.
    pub created: u64,
}

/// Rows that changed, deleted ones included, each in its latest state, in the order of their revisions.
#[derive(Debug, Clone)]
pub struct Changes<R> {
    /// The rows.
    pub rows: Vec<Changed<R>>,
    /// Nothing up to this revision is missing: ask for what comes after it.
    pub upto: u64,
}

/// How many rows there are, and the sum of their revisions: as long as both are the same, none was written, added or ended. Each write gives its rows a
/// revision of its own. (On PostgreSQL a transaction's revision is from its beginning, so two rows may in theory change such that the sum stays: one must
/// have been written by an older and the other by a younger one, each exactly as much.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Live rows.
    pub rows: u64,
    /// Sum of their revisions.
    pub revisions: u64,
}
