//! Query parameters: decoded once, validated where they are read.

use tine_host::{Lsn, VersionAt};
use tine_types::Timestamp;

use crate::error::RequestError;

/// Decoded `name=value` pairs of an address. The first of several equal names counts.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes the part of an address after `?`.
    pub fn parse(query: &str) -> Result<Parameters, RequestError> {
        if query.is_empty() {
            return Ok(Parameters::default());
        }
        let uri = format!("/?{query}").parse().map_err(|_| RequestError::BadQuery)?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        Ok(Parameters(pairs.map_err(|_| RequestError::BadQuery)?.0))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name` as `true` or `false`.
    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(RequestError::BadParameter { name, expected: "true or false" }),
        }
    }

    /// The value of `name` as an LSN.
    pub fn lsn(&self, name: &'static str) -> Result<Option<Lsn>, RequestError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed =
            text.parse().map_err(|_| RequestError::BadParameter { name, expected: "an LSN (a whole number)" })?;
        Ok(Some(Lsn::new(parsed)))
    }

    /// The value of `name` as a version: an LSN, or a time in RFC 3339.
    pub fn version(&self, name: &'static str) -> Result<Option<VersionAt>, RequestError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let lsn = text.parse().ok().map(|lsn| VersionAt::Lsn(Lsn::new(lsn)));
        let time = || Timestamp::from_rfc3339(text).ok().map(|time| VersionAt::Time(time.micros()));
        let expected = "an LSN (a whole number) or a time such as 2026-11-21T10:00:00Z";
        lsn.or_else(time).map(Some).ok_or(RequestError::BadParameter { name, expected })
    }

    /// The value of `name` as a whole number.
    pub fn number(&self, name: &'static str) -> Result<Option<u32>, RequestError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed = text.parse().map_err(|_| RequestError::BadParameter { name, expected: "a whole number" })?;
        Ok(Some(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_validated() {
        let parameters = Parameters::parse("a=1%202&b=true&b=false&n=17&empty=&plus=x+y").unwrap();
        assert_eq!(parameters.get("a"), Some("1 2"));
        assert_eq!(parameters.get("plus"), Some("x y"));
        assert_eq!(parameters.get("empty"), Some(""));
        assert_eq!(parameters.get("missing"), None);
        assert_eq!(parameters.boolean("b").unwrap(), Some(true));
        assert_eq!(parameters.number("n").unwrap(), Some(17));
        assert_eq!(parameters.boolean("n").unwrap_err().status().as_u16(), 400);
        assert_eq!(parameters.number("b").unwrap_err().status().as_u16(), 400);
        assert_eq!(parameters.number("missing").unwrap(), None);
    }
}
