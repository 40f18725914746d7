"""The travel desk: travellers, flights, hotels, bookings and vouchers, and the tools that work on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError, plain
from tracemill.generators.environments.people import people
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

NOW = datetime(2026, 5, 14, 12, 0)
CLOCK = NOW.isoformat(timespec="minutes")
TODAY = NOW.date()
ROUTES = (
    ("Lisbon", "Vienna", 215), ("Lisbon", "Zurich", 170), ("Zurich", "Oslo", 145), ("Vienna", "Oslo", 150), ("Lyon", "Lisbon", 150),
    ("Bologna", "Vienna", 80), ("Gdansk", "Oslo", 95), ("Seville", "Zurich", 160), ("Cork", "Lyon", 125), ("Vienna", "Zurich", 85),
)  # fmt: skip
DEPARTURES = ("06:20", "07:45", "09:10", "10:35", "12:25", "13:50", "15:15", "17:05", "18:40", "20:30")
SEATS = tuple(f"{row}{letter}" for row in range(4, 31) for letter in "ABCDEF")
HOTEL_NAMES = tuple(
    f"{name} {kind}"
    for name in ("Amber", "Birch", "Cobalt", "Dahlia", "Echo", "Fern", "Garnet", "Harbour", "Iris", "Juniper")
    for kind in ("Hotel", "House", "Inn", "Suites")
)

CHANGE_FEE = {"standard": 48.0, "flex": 0.0}
KEPT_ON_CANCELLATION = {"standard": 72.0, "flex": 0.0}
BAGS_IN_FARE = {"light": 0, "standard": 1, "flex": 1}
BAGS_OF_TIER = {"basic": 0, "silver": 1, "gold": 2}
BAG_PRICE = 35.0
MOST_BAGS = 4
SEAT_PRICE = 12.0
LATE_MINUTES = 180
VOUCHER_SHARE = {"basic": 0.5, "silver": 0.5, "gold": 0.75}

City = Literal["Lisbon", "Vienna", "Zurich", "Oslo", "Lyon", "Bologna", "Gdansk", "Seville", "Cork"]
CITIES: tuple[City, ...] = ("Lisbon", "Vienna", "Zurich", "Oslo", "Lyon", "Bologna", "Gdansk", "Seville", "Cork")
Tier = Literal["basic", "silver", "gold"]
Fare = Literal["light", "standard", "flex"]
Status = Literal["confirmed", "flown", "stayed", "cancelled"]
TravellerId = Annotated[str, Field(pattern=r"^TR-\d{4}$", description="Traveller id, such as 'TR-1042', as the look-ups return it.")]
FlightId = Annotated[str, Field(pattern=r"^[A-Z]{2}\d{3}-\d{4}$", description="Flight number with month and day, such as 'WF214-0603'.")]
HotelId = Annotated[str, Field(pattern=r"^HT-\d{3}$", description="Hotel id, such as 'HT-114'.")]
BookingId = Annotated[str, Field(pattern=r"^B[FH]-\d{5}$", description="Booking number: 'BF-20431' for a flight, 'BH-30518' for a hotel.")]
FlightBookingId = Annotated[str, Field(pattern=r"^BF-\d{5}$", description="Number of a flight booking, such as 'BF-20431'.")]
VoucherId = Annotated[str, Field(pattern=r"^VC-\d{4}$", description="Voucher id, such as 'VC-4011'.")]


@dataclass(frozen=True)
class Traveller(Row):
    id: str
    name: str
    birth_date: str
    email: str
    phone: str
    tier: Tier
    pays_with: str


@dataclass(frozen=True)
class Fares(Row):
    light: float
    standard: float
    flex: float

    def of(self, fare: Fare) -> float:
        return {"light": self.light, "standard": self.standard, "flex": self.flex}[fare]


@dataclass(frozen=True)
class Flight(Row):
    id: str
    origin: str
    destination: str
    departs_at: str
    arrives_at: str
    fares: Fares
    seats_left: int
    free_seats: tuple[str, ...]
    delay_minutes: int = 0

    @property
    def day(self) -> str:
        return self.departs_at[:10]

    @property
    def time(self) -> str:
        return self.departs_at[11:]


@dataclass(frozen=True)
class Hotel(Row):
    id: str
    name: str
    city: str
    stars: int
    nightly_price: float
    breakfast: bool
    free_cancellation_days: int | None
    rooms_free: int


@dataclass(frozen=True)
class FlightBooking(Row):
    id: str
    traveller_id: str
    flight_id: str
    fare: Fare
    fare_paid: float
    bags: int
    seat: str | None
    charged: float
    paid_with: str
    booked_at: str
    status: Status = "confirmed"
    changed_from: str | None = None
    voucher_used: str | None = None
    late_voucher: str | None = None
    refund: float = 0.0


@dataclass(frozen=True)
class HotelBooking(Row):
    id: str
    traveller_id: str
    hotel_id: str
    check_in: str
    check_out: str
    charged: float
    paid_with: str
    booked_at: str
    status: Status = "confirmed"
    refund: float = 0.0


@dataclass(frozen=True)
class Voucher(Row):
    id: str
    traveller_id: str
    value: float
    balance: float
    expires_on: str
    for_booking: str | None = None
    note: str = ""
    volatile = ("note",)


def nights(check_in: str, check_out: str) -> int:
    return (date.fromisoformat(check_out) - date.fromisoformat(check_in)).days


def minute(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")


class TravelTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "travel"
    policy = Path(__file__).parent / "policy.md"
    words = Path(__file__).parent / "words.yaml"
    departments = ("flights", "hotels", "refunds")

    travellers: Table[Traveller]
    flights: Table[Flight]
    hotels: Table[Hotel]
    flight_bookings: Table[FlightBooking]
    hotel_bookings: Table[HotelBooking]
    vouchers: Table[Voucher]

    # --- the world ---

    def build(self, rng: random.Random) -> None:
        self._build_travellers(rng)
        self._build_hotels(rng)
        coming, past, spare = self._build_flights(rng)
        self._build_flight_bookings(rng, coming, past, spare)
        self._build_hotel_bookings(rng)

    def _build_travellers(self, rng: random.Random) -> None:
        tiers: tuple[Tier, ...] = ("basic", "basic", "silver", "gold")
        voucher = rng.randint(4000, 4400)
        for number, person in enumerate(people(rng, 54), 1001 + rng.randrange(400)):
            born = date(1950, 1, 1) + timedelta(days=rng.randrange(20000))
            email = f"{person.handle}{rng.randint(10, 99)}@example.com"
            phone = f"+43 6{rng.randint(10, 99)} {rng.randint(100000, 999999)}"
            pays = f"{rng.choice(('visa', 'mastercard', 'paypal'))}_{rng.randint(1000, 9999)}"
            row = Traveller(f"TR-{number}", person.name, born.isoformat(), email, phone, rng.choice(tiers), pays)
            self.travellers.put(row)
            for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
                voucher += rng.randint(1, 40)
                value = float(rng.randrange(40, 200, 10))
                expires = TODAY + timedelta(days=rng.choice((-40, 60, 150, 300)))
                balance = rng.choice((value, value, value / 2))
                self.vouchers.put(Voucher(f"VC-{voucher}", row.id, value, balance, expires.isoformat()))

    def _build_hotels(self, rng: random.Random) -> None:
        names = rng.sample(HOTEL_NAMES, 36)
        for place, label in enumerate(names):
            stars = rng.randint(2, 5)
            price = float(stars * 24 + rng.randrange(0, 60, 2))
            terms = rng.choice((None, 1, 3, 7))
            rooms = rng.choice((0, 2, 5, 11))
            breakfast = rng.random() < 0.5
            if place < len(CITIES):  # every city has one place with breakfast and a room
                rooms, breakfast = max(rooms, 2), True
            city = CITIES[place % len(CITIES)]
            self.hotels.put(Hotel(f"HT-{101 + place * 3}", label, city, stars, price, breakfast, terms, rooms))

    def _build_flights(self, rng: random.Random) -> tuple[list[str], list[str], dict[str, list[str]]]:
        """Flights with the seats that nobody has bought; ids of those to come and of those that have been; and seats
        of each that bookings may still get."""
        coming: list[str] = []
        past: list[str] = []
        spare: dict[str, list[str]] = {}
        deck = rng.sample(SEATS, len(SEATS)) * 2  # any stretch of it holds different seats in no order
        number = rng.randint(110, 150)
        for one, other, minutes in ROUTES:
            for origin, destination in ((one, other), (other, one)):
                number += rng.randint(3, 25)
                days = [TODAY - timedelta(days=rng.randint(3, 28))]
                days += [TODAY + timedelta(days=ahead) for ahead in rng.sample(range(2, 46), 3)]
                for day in days:
                    count = 1 if day < TODAY else rng.choice((2, 3))
                    for leg, time in enumerate(sorted(rng.sample(DEPARTURES, count))):
                        start = f"{day.isoformat()}T{time}"
                        light = float(minutes // 5 * 2 + 20 + 4 * int(rng.random() * 25))
                        fares = Fares(light, light + 40.0, light + 96.0)
                        left = rng.choice((0, 2, 4, 6, 9)) if day > TODAY else 0
                        delay = rng.choice((0, 20, 95, 140, 185, 230, 310)) if day < TODAY else 0
                        first = int(rng.random() * len(SEATS))
                        seats = deck[first : first + left + 12]
                        end = minute(datetime.fromisoformat(start) + timedelta(minutes=minutes))
                        id = f"WF{number + leg}-{start[5:7]}{start[8:10]}"
                        flight = Flight(id, origin, destination, start, end, fares, left, tuple(seats[:left]), delay)
                        self.flights.put(flight)
                        spare[id] = seats[left:]
                        (past if day < TODAY else coming).append(id)
                number += 3
        return coming, past, spare

    def _build_flight_bookings(self, rng: random.Random, coming: list[str], past: list[str], spare: dict[str, list[str]]) -> None:
        fares: tuple[Fare, ...] = ("light", "light", "standard", "flex")
        number = rng.randint(20000, 60000)
        for traveller in list(self.travellers):
            chosen = rng.sample(coming, rng.choice((1, 1, 2, 3))) + rng.sample(past, rng.choice((0, 1, 1)))
            for flight in (self.flights[one] for one in chosen):
                number += rng.randint(1, 90)
                fare = rng.choice(fares)
                flown = flight.departs_at < CLOCK
                recent = not flown and rng.random() < 0.25
                ago = timedelta(minutes=rng.randint(20, 1300) if recent else rng.randint(30 * 1440, 80 * 1440))
                seat = spare[flight.id].pop()
                seated = flown or rng.random() < 0.5
                if not seated:
                    self.flights.update(flight, free_seats=(*flight.free_seats, seat))
                bags = rng.choice((0, 0, 1))
                extra = BAG_PRICE * max(0, bags - BAGS_IN_FARE[fare] - BAGS_OF_TIER[traveller.tier])
                self.flight_bookings.put(
                    FlightBooking(
                        f"BF-{number}", traveller.id, flight.id, fare, flight.fares.of(fare), bags, seat if seated else None,
                        flight.fares.of(fare) + extra, traveller.pays_with, minute(NOW - ago), "flown" if flown else "confirmed",
                    )
                )  # fmt: skip

    def _build_hotel_bookings(self, rng: random.Random) -> None:
        number = rng.randint(30000, 70000)
        hotels = list(self.hotels)
        for traveller in rng.sample(list(self.travellers), 42):
            number += rng.randint(1, 90)
            hotel = rng.choice(hotels)
            start = TODAY + timedelta(days=rng.choice((-30, -12, 1, 2, 4, 6, 9, 14, 20, 27, 33)))
            stay = rng.randint(1, 6)
            booked = NOW - timedelta(days=rng.randint(31, 80), minutes=rng.randint(0, 700))
            self.hotel_bookings.put(
                HotelBooking(
                    f"BH-{number}", traveller.id, hotel.id, start.isoformat(), (start + timedelta(days=stay)).isoformat(),
                    hotel.nightly_price * stay, traveller.pays_with, minute(booked), "stayed" if start < TODAY else "confirmed",
                )
            )  # fmt: skip

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        for row in changed:
            if isinstance(row, Flight):
                unseated = len(self.flight_bookings.where(flight_id=row.id, status="confirmed", seat=None))
                if row.seats_left < 0:
                    yield f"flight {row.id} would be overbooked"
                if len(row.free_seats) != row.seats_left + unseated:
                    yield f"flight {row.id}: the free seats are not those for sale and those not yet chosen"
                if len(set(row.free_seats)) != len(row.free_seats):
                    yield f"flight {row.id} has a seat twice"
            elif isinstance(row, FlightBooking):
                if not 0 <= row.bags <= MOST_BAGS:
                    yield f"booking {row.id} would have {row.bags} bags"
                if row.refund > row.charged + 0.005:
                    yield f"booking {row.id}: the refund is larger than what was charged"
                if row.seat is not None and len(self.flight_bookings.where(flight_id=row.flight_id, seat=row.seat)) > 1:
                    yield f"seat {row.seat} of flight {row.flight_id} is taken twice"
                if row.status == "cancelled" and row.seat is not None:
                    yield f"booking {row.id} is cancelled and still holds a seat"
            elif isinstance(row, HotelBooking):
                if row.check_out <= row.check_in:
                    yield f"booking {row.id} ends before it begins"
                if row.refund > row.charged + 0.005:
                    yield f"booking {row.id}: the refund is larger than what was charged"
            elif isinstance(row, Hotel) and row.rooms_free < 0:
                yield f"hotel {row.id} would have too few rooms"
            elif isinstance(row, Voucher) and not 0 <= row.balance <= row.value:
                yield f"voucher {row.id} would have a balance of {row.balance}"

    # --- reading ---

    @tool("read")
    def find_traveller(
        self, email: Annotated[str, Field(json_schema_extra={"format": "email"}, description="E-mail in the traveller's profile.")]
    ) -> Json:
        """Find a traveller by e-mail address."""
        found = self.travellers.where(email=email.lower())
        if not found:
            raise ToolError("not_found", f"no traveller with the e-mail {email!r}")
        return {"traveller_id": found[0].id, "name": found[0].name}

    @tool("read")
    def find_traveller_by_name(
        self, name: str, birth_date: Annotated[str, Field(json_schema_extra={"format": "date"}, description="Date of birth, YYYY-MM-DD.")]
    ) -> Json:
        """Find a traveller by full name and date of birth."""
        found = [one for one in self.travellers.where(birth_date=birth_date) if one.name.lower() == name.lower()]
        if not found:
            raise ToolError("not_found", f"no traveller {name!r} born on {birth_date}")
        return {"traveller_id": found[0].id, "name": found[0].name}

    @tool("read")
    def get_traveller(self, traveller_id: TravellerId) -> Traveller:
        """Profile of a traveller: contact, loyalty tier, payment method."""
        return self.travellers[traveller_id]

    @tool("read")
    def list_bookings(self, traveller_id: TravellerId) -> Json:
        """All bookings of a traveller, flights and hotels, in the order of travel."""
        traveller = self.travellers[traveller_id]
        rows: list[dict[str, Json]] = []
        for one in self.flight_bookings.where(traveller_id=traveller.id):
            flight = self.flights[one.flight_id]
            rows.append({"booking_id": one.id, "status": one.status, "starts": flight.day, "flight_id": flight.id, "route": route(flight)})
            if one.voucher_used:
                rows[-1]["voucher_used"] = one.voucher_used
        for stay in self.hotel_bookings.where(traveller_id=traveller.id):
            hotel = self.hotels[stay.hotel_id]
            rows.append({"booking_id": stay.id, "status": stay.status, "starts": stay.check_in, "hotel_id": hotel.id, "hotel": hotel.name})
        return sorted(rows, key=lambda one: (str(one["starts"]), str(one["booking_id"])))

    @tool("read")
    def get_booking(self, booking_id: BookingId) -> Json:
        """Everything about one booking of a flight or a hotel."""
        booking = self._booking(booking_id)
        if isinstance(booking, FlightBooking):
            flight = self.flights[booking.flight_id]
            return {**plain(booking), "route": route(flight), "departs_at": flight.departs_at}
        hotel = self.hotels[booking.hotel_id]
        return {**plain(booking), "hotel": hotel.name, "city": hotel.city}

    @tool("read")
    def search_flights(
        self,
        origin: City,
        destination: City,
        first_day: Annotated[str, Field(json_schema_extra={"format": "date"}, description="Day of departure, YYYY-MM-DD.")],
        last_day: Annotated[str | None, Field(json_schema_extra={"format": "date"}, description="For a range of days: its last.")] = None,
    ) -> Json:
        """Coming flights of a route on a day, or in a range of days, with fares and seats left, by time."""
        last = last_day or first_day
        if last < first_day:
            raise ToolError("not_allowed", f"the last day {last} is before the first, {first_day}")
        found = [f for f in self.flights if f.origin == origin and f.destination == destination and first_day <= f.day <= last]
        return [
            {"flight_id": f.id, "departs_at": f.departs_at, "arrives_at": f.arrives_at, "fares": f.fares, "seats_left": f.seats_left}
            for f in sorted(found, key=lambda f: f.departs_at)
            if f.departs_at > CLOCK
        ]

    @tool("read")
    def get_flight(self, flight_id: FlightId) -> Flight:
        """One flight: times, delay, fares, and the seats that can still be chosen."""
        return self.flights[flight_id]

    @tool("read")
    def search_hotels(
        self,
        city: City,
        max_price: Annotated[float | None, Field(gt=0, description="Only hotels up to this price a night.")] = None,
        breakfast: Annotated[bool, Field(description="Only hotels with breakfast.")] = False,
    ) -> list[Hotel]:
        """Hotels of a city, cheapest first, with price a night, terms of cancellation and free rooms."""
        found = [h for h in self.hotels.where(city=city) if h.breakfast or not breakfast]
        return sorted((h for h in found if max_price is None or h.nightly_price <= max_price), key=lambda h: (h.nightly_price, h.id))

    @tool("read")
    def get_hotel(self, hotel_id: HotelId) -> Hotel:
        """Price, terms of cancellation and free rooms of one hotel."""
        return self.hotels[hotel_id]

    @tool("read")
    def list_vouchers(self, traveller_id: TravellerId) -> list[Voucher]:
        """Vouchers of a traveller, with balance and last day of use."""
        return self.vouchers.where(traveller_id=self.travellers[traveller_id].id)

    @tool("read")
    def quote_cancellation(self, booking_id: BookingId) -> Json:
        """What would be refunded if a booking were cancelled now, and by which rule. Cancels nothing."""
        booking = self._booking(booking_id)
        refund, rule = self._refund(booking)
        return {"booking_id": booking.id, "charged": booking.charged, "refund": refund, "refund_to": booking.paid_with, "rule": rule}

    @tool("read")
    def quote_change(self, booking_id: FlightBookingId, new_flight_id: FlightId) -> Json:
        """What it would cost to move a booking to another flight of the same route. Changes nothing."""
        booking = self.flight_bookings[booking_id]
        fee, difference = self._cost_of_change(booking, self.flights[new_flight_id])
        parts = {"fee": fee, "fare_difference": difference, "cost": fee + difference}
        return {"booking_id": booking.id, "new_flight_id": new_flight_id, **parts}

    # --- writing ---

    @tool("irreversible")
    def book_flight(
        self,
        traveller_id: TravellerId,
        flight_id: FlightId,
        fare: Fare,
        voucher_id: Annotated[VoucherId | None, Field(description="A voucher of the traveller to pay with, as far as it goes.")] = None,
    ) -> Json:
        """Book a seat on a flight. What no voucher covers is charged at once to the traveller's payment method."""
        traveller, flight = self.travellers[traveller_id], self._bookable(self.flights[flight_id])
        price = flight.fares.of(fare)
        covered = 0.0
        if voucher_id is not None:
            voucher = self.vouchers[voucher_id]
            if voucher.traveller_id != traveller.id:
                raise ToolError("not_allowed", f"voucher {voucher.id} belongs to another traveller")
            if voucher.expires_on < TODAY.isoformat() or not voucher.balance:
                raise ToolError("not_allowed", f"voucher {voucher.id} has expired or is used up")
            covered = min(voucher.balance, price)
            self.vouchers.update(voucher, balance=voucher.balance - covered)
        booking = FlightBooking(
            self.flight_bookings.next_id("BF-", 20001), traveller.id, flight.id, fare, price, 0, None,
            price - covered, traveller.pays_with, CLOCK, voucher_used=voucher_id,
        )  # fmt: skip
        self.flight_bookings.put(booking)
        self.flights.update(flight, seats_left=flight.seats_left - 1)
        return {
            "booking_id": booking.id, "flight_id": flight.id, "fare_paid": price, "by_voucher": covered,
            "charged": booking.charged, "paid_with": booking.paid_with,
        }  # fmt: skip

    @tool("irreversible")
    def book_hotel(
        self,
        traveller_id: TravellerId,
        hotel_id: HotelId,
        check_in: Annotated[str, Field(json_schema_extra={"format": "date"}, description="First night, YYYY-MM-DD.")],
        check_out: Annotated[str, Field(json_schema_extra={"format": "date"}, description="Day of departure, YYYY-MM-DD.")],
    ) -> Json:
        """Book one room in a hotel. All nights are charged at once to the traveller's payment method."""
        traveller, hotel = self.travellers[traveller_id], self.hotels[hotel_id]
        stay = nights(check_in, check_out)
        if stay < 1 or check_in < TODAY.isoformat():
            raise ToolError("not_allowed", f"a stay from {check_in} to {check_out} cannot be booked")
        if hotel.rooms_free < 1:
            raise ToolError("not_allowed", f"{hotel.name} has no free room")
        booking = HotelBooking(
            self.hotel_bookings.next_id("BH-", 30001), traveller.id, hotel.id, check_in, check_out,
            round(hotel.nightly_price * stay, 2), traveller.pays_with, CLOCK,
        )  # fmt: skip
        self.hotel_bookings.put(booking)
        self.hotels.update(hotel, rooms_free=hotel.rooms_free - 1)
        return {"booking_id": booking.id, "hotel_id": hotel.id, "nights": stay, "charged": booking.charged, "paid_with": booking.paid_with}

    @tool("write")
    def change_flight(self, booking_id: FlightBookingId, new_flight_id: FlightId) -> Json:
        """Move a booking to another flight of the same route, in the same fare. The cost is charged at once; a chosen
        seat is given up."""
        booking, new = self.flight_bookings[booking_id], self.flights[new_flight_id]
        fee, difference = self._cost_of_change(booking, new)
        self._release_seat(booking)
        moved = self.flight_bookings.update(
            booking, flight_id=new.id, changed_from=booking.flight_id, seat=None, charged=booking.charged + fee + difference,
            fare_paid=booking.fare_paid + difference,
        )  # fmt: skip
        self.flights.update(new, seats_left=new.seats_left - 1)
        return {"booking_id": moved.id, "flight_id": new.id, "departs_at": new.departs_at, "cost": fee + difference}

    @tool("write")
    def add_baggage(
        self, booking_id: FlightBookingId, bags: Annotated[int, Field(ge=1, le=MOST_BAGS, description="How many bags to add.")]
    ) -> Json:
        """Add checked bags to a flight booking. Those beyond the free ones are charged at once."""
        booking = self._confirmed_flight(booking_id)
        if booking.bags + bags > MOST_BAGS:
            raise ToolError("not_allowed", f"{MOST_BAGS} bags are the most; booking {booking.id} has {booking.bags} already")
        cost = self._cost_of_bags(booking, bags)
        now = self.flight_bookings.update(booking, bags=booking.bags + bags, charged=booking.charged + cost)
        return {"booking_id": now.id, "bags": now.bags, "cost": cost}

    @tool("write")
    def select_seat(
        self, booking_id: FlightBookingId, seat: Annotated[str, Field(pattern=r"^\d{1,2}[A-F]$", description="A free seat, such as '14C'.")]
    ) -> Json:
        """Choose or change the seat of a flight booking. A fee is charged where one is due."""
        booking = self._confirmed_flight(booking_id)
        flight = self.flights[booking.flight_id]
        if seat not in flight.free_seats:
            raise ToolError("not_allowed", f"seat {seat} of flight {flight.id} is not free")
        free = tuple(one for one in flight.free_seats if one != seat)
        self.flights.update(flight, free_seats=free if booking.seat is None else (*free, booking.seat))
        cost = self._cost_of_seat(booking)
        self.flight_bookings.update(booking, seat=seat, charged=booking.charged + cost)
        return {"booking_id": booking.id, "seat": seat, "cost": cost}

    @tool("irreversible")
    def cancel_booking(
        self,
        booking_id: BookingId,
        accept_no_refund: Annotated[bool, Field(description="The traveller has said that it may go without any refund.")] = False,
    ) -> Json:
        """Cancel a booking for good. The refund follows from the fare or the hotel's terms."""
        booking = self._booking(booking_id)
        refund, rule = self._refund(booking)
        if not refund and not accept_no_refund:
            raise ToolError("not_allowed", f"nothing would be refunded ({rule}); the traveller must accept that first")
        if isinstance(booking, FlightBooking):
            self._release_seat(booking)
            self.flight_bookings.update(booking, status="cancelled", refund=refund, seat=None)
        else:
            hotel = self.hotels[booking.hotel_id]
            self.hotels.update(hotel, rooms_free=hotel.rooms_free + 1)
            self.hotel_bookings.update(booking, status="cancelled", refund=refund)
        return {"booking_id": booking.id, "status": "cancelled", "refund": refund, "refund_to": booking.paid_with}

    @tool("write")
    def issue_voucher(
        self,
        booking_id: FlightBookingId,
        amount: Annotated[float, Field(gt=0, description="What is due: a share of the fare paid, by tier.")],
        note: Annotated[str, Field(min_length=5, description="A line for the traveller, printed on the voucher.")],
    ) -> Json:
        """Issue a voucher for a flight that arrived 3 hours late or more. It is valid for a year."""
        booking = self.flight_bookings[booking_id]
        flight = self.flights[booking.flight_id]
        if booking.status != "flown" or flight.delay_minutes < LATE_MINUTES:
            raise ToolError("not_allowed", f"flight {flight.id} has not arrived {LATE_MINUTES} minutes late or more")
        if booking.late_voucher is not None:
            raise ToolError("not_allowed", f"voucher {booking.late_voucher} was issued for booking {booking.id} already")
        due = self._voucher_due(booking)
        if abs(amount - due) > 0.005:
            raise ToolError("not_allowed", f"{amount:.2f} is not the share of the fare that the traveller's tier earns")
        until = TODAY.replace(year=TODAY.year + 1).isoformat()
        voucher = Voucher(self.vouchers.next_id("VC-", 4001), booking.traveller_id, due, due, until, booking.id, note)
        self.vouchers.put(voucher)
        self.flight_bookings.update(booking, late_voucher=voucher.id)
        return {"voucher_id": voucher.id, "booking_id": booking.id, "value": due, "expires_on": until}

    @tool("write")
    def update_contact(
        self,
        traveller_id: TravellerId,
        email: Annotated[str | None, Field(json_schema_extra={"format": "email"}, description="New e-mail address.")] = None,
        phone: Annotated[str | None, Field(pattern=r"^\+\d[\d ]{7,18}$", description="New phone number, with country code.")] = None,
    ) -> Json:
        """Change the e-mail address or the phone number of a traveller, or both."""
        traveller = self.travellers[traveller_id]
        if email is None and phone is None:
            raise ToolError("not_allowed", "give an e-mail address or a phone number")
        if email is not None and any(one.id != traveller.id for one in self.travellers.where(email=email.lower())):
            raise ToolError("not_allowed", f"another traveller has the e-mail {email!r}")
        now = self.travellers.update(traveller, email=email.lower() if email else traveller.email, phone=phone or traveller.phone)
        return {"traveller_id": now.id, "email": now.email, "phone": now.phone}

    # --- the rules behind them ---

    def _booking(self, booking_id: str) -> FlightBooking | HotelBooking:
        return self.flight_bookings[booking_id] if booking_id.startswith("BF") else self.hotel_bookings[booking_id]

    def _confirmed_flight(self, booking_id: str) -> FlightBooking:
        booking = self.flight_bookings[booking_id]
        if booking.status != "confirmed":
            raise ToolError("not_allowed", f"booking {booking.id} is {booking.status}; only a confirmed one can be changed")
        return booking

    def _bookable(self, flight: Flight) -> Flight:
        if flight.departs_at <= CLOCK:
            raise ToolError("not_allowed", f"flight {flight.id} has departed")
        if flight.seats_left < 1:
            raise ToolError("not_allowed", f"flight {flight.id} is sold out")
        return flight

    def _refund(self, booking: FlightBooking | HotelBooking) -> tuple[float, str]:
        """What a cancellation gives back now, and why."""
        if booking.status != "confirmed":
            raise ToolError("not_allowed", f"booking {booking.id} is {booking.status}; only a confirmed one can be cancelled")
        if isinstance(booking, HotelBooking):
            hotel = self.hotels[booking.hotel_id]
            if hotel.free_cancellation_days is None:
                return 0.0, "this hotel refunds nothing"
            if (date.fromisoformat(booking.check_in) - TODAY).days >= hotel.free_cancellation_days:
                return booking.charged, f"free until {hotel.free_cancellation_days} days before check-in"
            first_night = booking.charged / nights(booking.check_in, booking.check_out)
            return round(booking.charged - first_night, 2), "too late for a full refund; the first night is kept"
        if self._within_a_day(booking):
            return booking.charged, "24-hour rule, refund in full"
        if booking.fare == "light":
            return 0.0, "light fare, not refundable"
        kept = KEPT_ON_CANCELLATION[booking.fare]
        rule = f"standard fare, {kept:.2f} is kept" if kept else "flex fare, refund in full"
        return max(0.0, round(booking.charged - kept, 2)), rule

    def _within_a_day(self, booking: FlightBooking) -> bool:
        """The 24-hour rule."""
        booked, departs = datetime.fromisoformat(booking.booked_at), datetime.fromisoformat(self.flights[booking.flight_id].departs_at)
        return NOW - booked <= timedelta(hours=24) and departs - NOW >= timedelta(days=7)

    def _cost_of_change(self, booking: FlightBooking, new: Flight) -> tuple[float, float]:
        """Fee and fare difference. Raises ToolError where the change is not allowed."""
        old = self.flights[self._confirmed_flight(booking.id).flight_id]
        if booking.fare == "light":
            raise ToolError("not_allowed", f"booking {booking.id} is in the light fare, which cannot be changed")
        if new.id == old.id or (new.origin, new.destination) != (old.origin, old.destination):
            raise ToolError("not_allowed", f"flight {new.id} is not another flight from {old.origin} to {old.destination}")
        self._bookable(new)
        fee = 0.0 if self.travellers[booking.traveller_id].tier == "gold" else CHANGE_FEE[booking.fare]
        return fee, max(0.0, new.fares.of(booking.fare) - booking.fare_paid)

    def _cost_of_bags(self, booking: FlightBooking, bags: int) -> float:
        free = BAGS_IN_FARE[booking.fare] + BAGS_OF_TIER[self.travellers[booking.traveller_id].tier]
        return BAG_PRICE * (max(0, booking.bags + bags - free) - max(0, booking.bags - free))

    def _cost_of_seat(self, booking: FlightBooking) -> float:
        basic = self.travellers[booking.traveller_id].tier == "basic"
        return SEAT_PRICE if basic and booking.fare == "light" else 0.0

    def _voucher_due(self, booking: FlightBooking) -> float:
        return round(booking.fare_paid * VOUCHER_SHARE[self.travellers[booking.traveller_id].tier], 2)

    def _release_seat(self, booking: FlightBooking) -> None:
        """The booking leaves its flight; the seat it had, or one that was kept open for it, is for sale again."""
        flight = self.flights[booking.flight_id]
        free = flight.free_seats if booking.seat is None else (*flight.free_seats, booking.seat)
        self.flights.update(flight, seats_left=flight.seats_left + 1, free_seats=free)


def route(flight: Flight) -> str:
    return f"{flight.origin}-{flight.destination}"
