//! Path templates of `google.api.http`, as far as axum can route them.
use anyhow::{Result, bail, ensure};

/// A part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text, a verb after `:` included.
    Literal(String),
    /// A request field that is one segment.
    Param(String),
    /// A request field that is the rest of the path.
    Rest(String),
}

/// A parsed path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Segment>);

impl Template {
    /// Parses a template such as `/vpcs/{vpc}/subnets:watch`.
    ///
    /// # Errors
    /// What is not a template, and what axum cannot route: a verb after a parameter, a pattern within one.
    pub fn parse(path: &str) -> Result<Self> {
        let Some(rest) = path.strip_prefix('/') else { bail!("the path `{path}` does not begin with `/`") };
        let count = rest.split('/').count();
        let segments = rest.split('/').enumerate().map(|(i, text)| segment(path, text, i + 1 == count));
        Ok(Template(segments.collect::<Result<_>>()?))
    }

    /// The fields in the path, in order.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Param(field) | Segment::Rest(field) => Some(field.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The path as axum writes it.
    #[must_use]
    pub fn axum(&self) -> String {
        self.write(|field| format!("{{{field}}}"), |field| format!("{{*{field}}}"))
    }

    /// The path as OpenAPI writes it.
    #[must_use]
    pub fn openapi(&self) -> String {
        let param = |field: &str| format!("{{{}}}", param_name(field));
        self.write(param, param)
    }

    /// The path without the names of its fields: two routes with the same shape are one.
    #[must_use]
    pub fn shape(&self) -> String {
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Param(_) => "{}".to_owned(),
            Segment::Rest(_) => "{*}".to_owned(),
        });
        segments.fold(String::new(), |path, segment| path + "/" + &segment)
    }

    fn write(&self, param: impl Fn(&str) -> String, rest: impl Fn(&str) -> String) -> String {
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Param(field) => param(field),
            Segment::Rest(field) => rest(field),
        });
        segments.fold(String::new(), |path, segment| path + "/" + &segment)
    }
}

/// A parameter's name in OpenAPI, whose tools stumble over dots.
#[must_use]
pub fn param_name(field: &str) -> String {
    field.replace('.', "_")
}

fn segment(path: &str, text: &str, last: bool) -> Result<Segment> {
    let Some(inner) = text.strip_prefix('{') else {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        ensure!(!text.is_empty() && text.chars().all(plain), "the path `{path}` has the segment `{text}`");
        return Ok(Segment::Literal(text.to_owned()));
    };
    let Some(inner) = inner.strip_suffix('}') else {
        bail!("the path `{path}` has text after the parameter `{text}`, which the router cannot match")
    };
    let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.');
    ensure!(!field.is_empty() && field.chars().all(plain), "the path `{path}` has the parameter `{text}`");
    match pattern {
        "*" => Ok(Segment::Param(field.to_owned())),
        "**" if last => Ok(Segment::Rest(field.to_owned())),
        _ => bail!("the path `{path}` has the pattern `{pattern}`, which the router cannot match"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_written() {
        let template = Template::parse("/vpcs/{vpc}/files/{path=**}").unwrap();
        assert_eq!(template.axum(), "/vpcs/{vpc}/files/{*path}");
        assert_eq!(template.openapi(), "/vpcs/{vpc}/files/{path}");
        assert_eq!(Template::parse("/v1.2/{a.b}").unwrap().openapi(), "/v1.2/{a_b}");
        assert_eq!(template.shape(), "/vpcs/{}/files/{*}");
        assert_eq!(template.params().collect::<Vec<_>>(), ["vpc", "path"]);
        assert_eq!(Template::parse("/instances:watch").unwrap().axum(), "/instances:watch");
    }

    #[test]
    fn what_cannot_be_routed_is_refused() {
        for path in ["", "instances", "/a//b", "/a/{id}:stop", "/a/{id", "/{name=a/*}", "/{a=**}/b", "/a/{}", "/ü"] {
            assert!(Template::parse(path).is_err(), "{path}");
        }
    }
}
