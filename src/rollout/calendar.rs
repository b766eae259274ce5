//! When a weight may rise: not before a time, in business hours of a zone, outside freezes of whole days. A fall never
//! asks.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::names::Wall;
use crate::rollout::plan::Plan;

/// Business hours: `"Mon-Fri 09:00-17:00 Europe/Berlin"`. Days are a range or a list with commas (`daily` for all);
/// the end is excluded and may be `24:00`; without a zone it is UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    text: String,
    days: [bool; 7],
    from: i32,
    to: i32,
    zone: TimeZone,
}

/// A freeze: `"2026-12-24/2027-01-02"`, both days included, or a single day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Freeze {
    text: String,
    first: Date,
    last: Date,
}

/// A time before which nothing rises, as RFC 3339 has it: `"2026-12-01T09:00:00+01:00"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NotBefore {
    text: String,
    at: Wall,
}

/// Why a text is no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Not "days from-to zone".
    #[error("hours are written \"Mon-Fri 09:00-17:00 Europe/Berlin\"")]
    Form,
    /// A day that is none of Mon, Tue, Wed, Thu, Fri, Sat, Sun.
    #[error("{0:?} is no day: use Mon, Tue, Wed, Thu, Fri, Sat, Sun, with - or commas, or daily")]
    Day(String),
    /// A time of day that is not HH:MM.
    #[error("{0:?} is no time of day: use HH:MM")]
    Time(String),
    /// The hours end before they begin.
    #[error("hours end after they begin, on the same day")]
    Order,
    /// No such time zone.
    #[error("{0:?} is no time zone that this machine knows")]
    Zone(String),
    /// Not "first/last".
    #[error("a freeze is written \"2026-12-24/2027-01-02\", first day and last day, both included")]
    Freeze,
    /// Not a time with its offset.
    #[error("a time is written as RFC 3339 has it: \"2026-12-01T09:00:00+01:00\", or with Z")]
    NotBefore,
}

impl Hours {
    /// Whether a rise may happen at this time.
    #[must_use]
    pub fn open(&self, at: Wall) -> bool {
        let Ok(stamp) = Timestamp::from_millisecond(at.0) else { return false };
        let local = self.zone.to_datetime(stamp);
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        self.days[index_of(local.weekday())] && minute >= self.from && minute < self.to
    }

    /// The zone in which days are counted.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl Freeze {
    /// Whether this time lies in the freeze, days counted in `zone`.
    #[must_use]
    pub fn holds(&self, at: Wall, zone: &TimeZone) -> bool {
        let Ok(stamp) = Timestamp::from_millisecond(at.0) else { return true };
        let day = zone.to_datetime(stamp).date();
        self.first <= day && day <= self.last
    }
}

/// Whether the plan's calendar lets a weight rise at this time; else the reason why not.
///
/// # Errors
/// The sentence for people: too early, outside the hours, or inside a freeze.
pub fn may_rise(plan: &Plan, at: Wall) -> Result<(), String> {
    if let Some(first) = plan.not_before.as_ref().filter(|first| at < first.at) {
        return Err(format!("before {first}, the plan's not_before"));
    }
    let hours = plan.hours.as_ref();
    if let Some(hours) = hours
        && !hours.open(at)
    {
        return Err(format!("outside the plan's hours ({hours})"));
    }
    let zone = hours.map_or(TimeZone::UTC, |h| h.zone().clone());
    match plan.freezes.iter().find(|f| f.holds(at, &zone)) {
        Some(freeze) => Err(format!("inside the freeze {freeze}")),
        None => Ok(()),
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn index_of(day: Weekday) -> usize {
    usize::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

fn day(text: &str) -> Result<usize, CalendarError> {
    let low = text.trim().to_ascii_lowercase();
    DAYS.iter().position(|d| *d == low).ok_or_else(|| CalendarError::Day(text.to_owned()))
}

fn minute(text: &str) -> Result<i32, CalendarError> {
    if text == "24:00" {
        return Ok(24 * 60);
    }
    let wrong = || CalendarError::Time(text.to_owned());
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let digits = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return Err(wrong());
    }
    let time = Time::new(hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?, 0, 0)
        .map_err(|_| wrong())?;
    Ok(i32::from(time.hour()) * 60 + i32::from(time.minute()))
}

impl FromStr for Hours {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let mut words = text.split_whitespace();
        let (Some(day_words), Some(times)) = (words.next(), words.next()) else { return Err(CalendarError::Form) };
        let zone_name = words.next();
        if words.next().is_some() {
            return Err(CalendarError::Form);
        }
        let mut days = [false; 7];
        if day_words.eq_ignore_ascii_case("daily") {
            days = [true; 7];
        } else {
            for part in day_words.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (day(first)?, day(last)?);
                let mut at = first;
                days[at] = true;
                while at != last {
                    at = (at + 1) % 7;
                    days[at] = true;
                }
            }
        }
        let (from, to) = times.split_once('-').ok_or(CalendarError::Form)?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from >= to {
            return Err(CalendarError::Order);
        }
        let zone = match zone_name {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| CalendarError::Zone(name.to_owned()))?,
        };
        Ok(Self { text: text.to_owned(), days, from, to, zone })
    }
}

impl FromStr for Freeze {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let (first, last) = text.split_once('/').unwrap_or((text, text));
        let date = |s: &str| s.trim().parse::<Date>().map_err(|_| CalendarError::Freeze);
        let (first, last) = (date(first)?, date(last)?);
        if first > last {
            return Err(CalendarError::Freeze);
        }
        Ok(Self { text: text.to_owned(), first, last })
    }
}

impl FromStr for NotBefore {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let at = text.parse::<Timestamp>().map_err(|_| CalendarError::NotBefore)?;
        Ok(Self { text: text.to_owned(), at: Wall(at.as_millisecond()) })
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = CalendarError;

            fn try_from(text: String) -> Result<Self, CalendarError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }
    };
}

text_form!(Hours);
text_form!(Freeze);
text_form!(NotBefore);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wall {
        Wall(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn hours_are_kept_in_their_zone_across_daylight_saving() {
        let hours: Hours = "Mon-Fri 09:00-17:00 Europe/Berlin".parse().unwrap();
        for (time, expect) in [
            ("2026-11-20T08:00:00Z", true),  // Friday, 09:00 in winter
            ("2026-11-20T07:59:59Z", false), // a second before
            ("2026-11-20T15:59:59Z", true),
            ("2026-11-20T16:00:00Z", false), // 17:00: the end is excluded
            ("2026-07-03T07:00:00Z", true),  // Friday, 09:00 in summer
            ("2026-07-03T15:00:00Z", false), // 17:00 in summer
            ("2026-11-21T10:00:00Z", false), // Saturday
        ] {
            assert_eq!(hours.open(at(time)), expect, "{time}");
        }
        let weekend: Hours = "Sat-Mon,Wed 00:00-24:00".parse().unwrap();
        assert!(weekend.open(at("2026-11-22T23:59:59Z")) && weekend.open(at("2026-11-23T00:00:00Z")));
        assert!(weekend.open(at("2026-11-25T12:00:00Z")) && !weekend.open(at("2026-11-24T12:00:00Z")));
    }

    #[test]
    fn an_hour_that_is_missing_never_opens_and_one_that_comes_twice_is_open_both_times() {
        let hours: Hours = "daily 02:00-03:00 Europe/Berlin".parse().unwrap();
        let open = |from: &str| {
            let begin = at(from).0;
            (0..24 * 60).filter(|minute| hours.open(Wall(begin + minute * 60_000))).count()
        };
        assert_eq!(open("2026-11-20T00:00:00Z"), 60, "an ordinary day");
        assert_eq!(open("2027-03-28T00:00:00Z"), 0, "02:00 becomes 03:00");
        assert_eq!(open("2026-10-24T22:00:00Z"), 120, "03:00 becomes 02:00");
    }

    #[test]
    fn a_freeze_holds_both_of_its_days_in_the_zone_of_the_hours() {
        let freeze: Freeze = "2026-12-24/2027-01-02".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (time, expect) in [
            ("2026-12-23T22:59:59Z", false),
            ("2026-12-23T23:00:00Z", true), // midnight in Berlin
            ("2027-01-02T22:59:59Z", true),
            ("2027-01-02T23:00:00Z", false),
        ] {
            assert_eq!(freeze.holds(at(time), &berlin), expect, "{time}");
        }
        let plan = Plan { freezes: vec![freeze], ..Plan::default() };
        assert!(may_rise(&plan, at("2026-12-25T12:00:00Z")).unwrap_err().contains("freeze"));
    }

    #[test]
    fn nothing_rises_before_the_time_that_the_plan_names_and_hours_hold_after_it_too() {
        let not_before = Some("2026-11-20T10:00:00+01:00".parse().unwrap());
        let mut plan = Plan { not_before, ..Plan::default() };
        let early = may_rise(&plan, at("2026-11-20T08:59:59.999Z")).unwrap_err();
        assert_eq!(early, "before 2026-11-20T10:00:00+01:00, the plan's not_before");
        assert_eq!(may_rise(&plan, at("2026-11-20T09:00:00Z")), Ok(()));
        plan.hours = Some("Mon-Fri 09:00-17:00".parse().unwrap());
        assert_eq!(may_rise(&plan, at("2026-11-20T09:00:00Z")), Ok(()));
        assert!(may_rise(&plan, at("2026-11-20T17:00:00Z")).unwrap_err().contains("hours"));
    }

    #[test]
    fn zones_are_known_without_the_systems_files() {
        // What is left in an image of nothing but serin.
        let own = jiff::tz::TimeZoneDatabase::bundled();
        for zone in ["Europe/Berlin", "America/New_York", "Asia/Kolkata"] {
            assert!(own.get(zone).is_ok(), "{zone}");
        }
    }

    #[test]
    fn a_wrong_calendar_says_what_is_wrong_with_it() {
        let wrong = |text: &str| text.parse::<Hours>().unwrap_err();
        assert_eq!(wrong("Mon-Fri"), CalendarError::Form);
        assert_eq!(wrong("Mon-Fry 09:00-17:00"), CalendarError::Day("Fry".into()));
        assert_eq!(wrong("daily 9:00-17:00"), CalendarError::Time("9:00".into()));
        assert_eq!(wrong("daily 09:00-25:00"), CalendarError::Time("25:00".into()));
        assert_eq!(wrong("daily 17:00-09:00"), CalendarError::Order);
        assert_eq!(wrong("daily 09:00-17:00 Mars/Base"), CalendarError::Zone("Mars/Base".into()));
        assert_eq!("2027-01-02/2026-12-24".parse::<Freeze>().unwrap_err(), CalendarError::Freeze);
        for no_offset in ["2026-11-20T10:00:00", "2026-11-20", "tomorrow"] {
            assert_eq!(no_offset.parse::<NotBefore>().unwrap_err(), CalendarError::NotBefore);
        }
    }
}
