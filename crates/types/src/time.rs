//! Points in time and spans of time, both in microseconds.
//!
//! The calendar is the proleptic Gregorian one without leap seconds, as in RFC 3339. Every `i64` of
//! microseconds has a text form: years outside 0000 to 9999 are written with a sign and six digits.

use std::fmt;
use std::str::FromStr;

use crate::AlgebraicValue;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const MICROS_PER_DAY: i64 = SECONDS_PER_DAY * MICROS_PER_SECOND;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;
/// Days in the 400 years after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;

/// A point in time: microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A span of time in microseconds; may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TimeDuration(i64);

/// When a scheduled row is due. Variant order is the wire order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScheduleAt {
    /// Again and again, this far apart.
    Interval(TimeDuration),
    /// Once.
    Time(Timestamp),
}

/// Text that is no RFC 3339 time, or one that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an RFC 3339 timestamp, such as 2026-01-31T12:00:00.000000Z")]
pub struct TimeParseError;

impl TimeParseError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        "TN0124"
    }
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// The time `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The time `span` later, if it can be expressed.
    pub const fn checked_add(self, span: TimeDuration) -> Option<Self> {
        match self.0.checked_add(span.0) {
            Some(micros) => Some(Self(micros)),
            None => None,
        }
    }

    /// How long after `earlier` this is, if it can be expressed.
    pub const fn checked_since(self, earlier: Self) -> Option<TimeDuration> {
        match self.0.checked_sub(earlier.0) {
            Some(micros) => Some(TimeDuration(micros)),
            None => None,
        }
    }

    /// UTC with six fractional digits, such as `2026-01-31T12:00:00.000000Z`.
    pub fn to_rfc3339(self) -> String {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        let in_day = self.0.rem_euclid(MICROS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = (in_day / MICROS_PER_SECOND, in_day % MICROS_PER_SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let year = match year {
            0..=9999 => format!("{year:04}"),
            _ => format!("{year:+07}"),
        };
        format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }

    /// Parses RFC 3339: any offset, any number of fractional digits (cut to microseconds), a space
    /// in place of `T`, and a missing time of day or offset, which stand for midnight and UTC.
    ///
    /// # Errors
    /// Any other text, dates that do not exist, times out of range.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimeParseError> {
        parse_rfc3339(text).map(Self).ok_or(TimeParseError)
    }

    /// The value of type [`AlgebraicType::timestamp`](crate::AlgebraicType::timestamp).
    pub fn to_value(self) -> AlgebraicValue {
        AlgebraicValue::Product(vec![AlgebraicValue::I64(self.0)])
    }
}

impl TimeDuration {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// A span of `micros` microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The span in microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The span as a standard duration; `None` if negative.
    pub fn to_duration(self) -> Option<std::time::Duration> {
        u64::try_from(self.0).ok().map(std::time::Duration::from_micros)
    }

    /// From a standard duration, at most the largest span there is.
    pub fn from_duration(duration: std::time::Duration) -> Self {
        Self(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }

    /// The value of type [`AlgebraicType::time_duration`](crate::AlgebraicType::time_duration).
    pub fn to_value(self) -> AlgebraicValue {
        AlgebraicValue::Product(vec![AlgebraicValue::I64(self.0)])
    }
}

impl ScheduleAt {
    /// The value of type [`AlgebraicType::schedule_at`](crate::AlgebraicType::schedule_at).
    pub fn to_value(self) -> AlgebraicValue {
        let (tag, value) = match self {
            Self::Interval(span) => (0, span.to_value()),
            Self::Time(time) => (1, time.to_value()),
        };
        AlgebraicValue::Sum { tag, value: Box::new(value) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({})", self.to_rfc3339())
    }
}

impl FromStr for Timestamp {
    type Err = TimeParseError;

    fn from_str(text: &str) -> Result<Self, TimeParseError> {
        Self::from_rfc3339(text)
    }
}

/// Year, month and day of a number of days since the Unix epoch. Years start in March inside, so
/// that the leap day is the last day of a year and month lengths follow one linear formula.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Inverse of [`civil_from_days`] for dates that exist.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - EPOCH_DAYS
}

/// A cursor over the ASCII of a timestamp.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn accept(&mut self, choices: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        choices.contains(&first).then(|| {
            self.0 = rest;
            first
        })
    }

    /// Exactly `count` digits.
    fn number(&mut self, count: usize) -> Option<i64> {
        let digits = self.0.get(..count)?;
        self.0 = &self.0[count..];
        digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    }

    fn year(&mut self) -> Option<i64> {
        match self.accept(b"+-") {
            Some(b'-') => self.number(6).map(|year| -year),
            Some(_) => self.number(6),
            None => self.number(4),
        }
    }

    /// Digits after the decimal point, as microseconds.
    fn fraction_micros(&mut self) -> Option<i64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = &self.0[..length];
        self.0 = &self.0[length..];
        let micros = (0..6).fold(0, |micros, index| {
            let digit = digits.get(index).map_or(0, |digit| i64::from(digit - b'0'));
            micros * 10 + digit
        });
        (length > 0).then_some(micros)
    }

    fn offset_seconds(&mut self) -> Option<i64> {
        let Some(sign) = self.accept(b"zZ+-") else {
            return self.0.is_empty().then_some(0);
        };
        if matches!(sign, b'z' | b'Z') {
            return Some(0);
        }
        let hours = self.number(2)?;
        self.accept(b":")?;
        let minutes = self.number(2)?;
        let seconds = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
        Some(if sign == b'-' { -seconds } else { seconds })
    }
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    let mut scanner = Scanner(text.as_bytes());
    let year = scanner.year()?;
    scanner.accept(b"-")?;
    let month = scanner.number(2)?;
    scanner.accept(b"-")?;
    let day = scanner.number(2)?;
    let days = days_from_civil(year, month.clamp(1, 12), day);
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let (mut seconds, mut micros) = (0, 0);
    if scanner.accept(b"Tt ").is_some() {
        let hour = scanner.number(2)?;
        scanner.accept(b":")?;
        let minute = scanner.number(2)?;
        scanner.accept(b":")?;
        let second = scanner.number(2)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if scanner.accept(b".").is_some() {
            micros = scanner.fraction_micros()?;
        }
        seconds = hour * 3600 + minute * 60 + second - scanner.offset_seconds()?;
    }
    if !scanner.0.is_empty() {
        return None;
    }
    // The sum of whole seconds cannot overflow (six-digit years); only the scaling can, and i128
    // keeps the smallest timestamp, whose second lies outside of the range of i64, parseable.
    let seconds = days * SECONDS_PER_DAY + seconds;
    i64::try_from(i128::from(seconds) * i128::from(MICROS_PER_SECOND) + i128::from(micros)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (253_402_300_800_000_000, "+010000-01-01T00:00:00.000000Z"),
            (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999Z"),
            (i64::MAX, "+294247-01-10T04:00:54.775807Z"),
            (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_rfc3339(), text);
            assert_eq!(Timestamp::from_rfc3339(text), Ok(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn accepted_variations() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-01 00:00:01", 1_000_000),
            ("1970-01-01t00:00:00.5z", 500_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T19:00:00.0000019-05:00", 1),
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), Ok(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn refused_texts() {
        for text in [
            "",
            "1970",
            "1970-02-30",
            "1970-13-01",
            "1970-00-01",
            "1970-01-00",
            "1970-01-01T",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00Zx",
            "+999999-01-01",
            "1970-01-01é",
            "2023-02-29",
            "１９70-01-01",
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), Err(TimeParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(micros: i64) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(time.to_rfc3339().parse(), Ok(time));
        }

        #[test]
        fn parsing_never_panics(text in "[-+0-9TZ:. é]{0,40}") {
            let _ = Timestamp::from_rfc3339(&text);
        }
    }
}
