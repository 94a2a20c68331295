//! The same for several resources: a few at a time, the results in the order of the names.

use std::future::Future;

use futures::{StreamExt, stream};

use crate::error::Error;

/// How many calls are under way at a time.
const AT_A_TIME: usize = 8;

/// What came of it.
pub struct Batch<R> {
    /// Of those that went well.
    pub done: Vec<R>,
    errors: Vec<Error>,
}

/// Does `act` to every name.
pub async fn each<R, F: Future<Output = Result<R, Error>>>(names: Vec<String>, act: impl Fn(String) -> F) -> Batch<R> {
    let results: Vec<Result<R, Error>> = stream::iter(names).map(act).buffered(AT_A_TIME).collect().await;
    let mut batch = Batch { done: Vec::new(), errors: Vec::new() };
    for result in results {
        match result {
            Ok(item) => batch.done.push(item),
            Err(error) => batch.errors.push(error),
        }
    }
    batch
}

impl<R> Batch<R> {
    /// The end of the command: all well, the one error, or all errors told and the exit code of the first.
    pub fn finish(mut self) -> Result<(), Error> {
        let all = self.done.len() + self.errors.len();
        match self.errors.len() {
            0 => Ok(()),
            1 => Err(self.errors.remove(0)),
            failed => {
                self.errors.iter().for_each(Error::report);
                Err(Error::Several { failed, all, code: self.errors[0].exit_code() })
            }
        }
    }
}
