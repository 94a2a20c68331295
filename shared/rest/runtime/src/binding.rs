//! What generated code says about a route.

/// One route of one method whose request is `M`.
pub struct Binding<M: 'static> {
    /// The method, as in a gRPC path: `cloud.v1.InstanceService/GetInstance`.
    pub method: &'static str,
    /// The HTTP status of success.
    pub success: u16,
    /// What the body is.
    pub body: Body,
    /// The fields in the path, in order.
    pub params: &'static [Param<M>],
    /// The query parameters.
    pub query: &'static [QueryField],
    /// The fields that headers set where the request does not.
    pub headers: &'static [HeaderField<M>],
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing; what is sent is not read.
    None,
    /// The request itself.
    Whole,
    /// One field of the request, by its proto name.
    Field(&'static str),
}

/// A field in the path.
pub struct Param<M> {
    /// The field's path.
    pub name: &'static str,
    /// The field.
    pub slot: fn(&mut M) -> &mut String,
}

/// A field that a header sets.
pub struct HeaderField<M> {
    /// The header, in lower case.
    pub header: &'static str,
    /// The field's path.
    pub name: &'static str,
    /// The field.
    pub slot: fn(&mut M) -> &mut String,
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct QueryField {
    /// The dotted path of proto names.
    pub path: &'static str,
    /// The same in camel case.
    pub camel: &'static str,
    /// How its text is read.
    pub kind: QueryKind,
    /// Whether it may be there more than once.
    pub repeated: bool,
}

/// How the text of a query parameter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// Everything that JSON writes as a string.
    Text,
}
