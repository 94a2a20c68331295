//! Filters as SQL: one condition a term, on a column where one holds the field, else on the row's JSON.

use cloud_core::{
    filter::{Filter, Op, Term},
    model::Value,
};

use super::{dialect::Dialect, rows::Values};

/// The conditions, each with ` AND ` in front. Names are the fields' own; what callers say is bound.
pub(super) fn conditions(dialect: Dialect, filter: &Filter, values: &mut Values) -> String {
    filter.terms().iter().map(|term| format!(" AND {}", condition(dialect, term, values))).collect()
}

fn condition(dialect: Dialect, term: &Term, values: &mut Values) -> String {
    let field = match (term.field.column, &term.key) {
        (Some(column), _) => column.to_owned(),
        (None, Some(key)) => {
            let key = values.place(Value::Text(key.clone()));
            // What is not there is empty, as it is for a row at hand.
            format!("COALESCE({}, '')", dialect.json_member(term.field.path, &key))
        }
        (None, None) => format!("COALESCE({}, '')", dialect.json_text(term.field.path, term.field.kind)),
    };
    match term.op {
        Op::Is => format!("{field} = {}", values.place(Value::Text(term.value.clone()))),
        Op::IsNot => format!("{field} <> {}", values.place(Value::Text(term.value.clone()))),
        Op::Like => {
            let pattern = values.place(Value::Text(dialect.glob_pattern(&term.value)));
            format!("{field} {}", dialect.glob(&pattern))
        }
    }
}
