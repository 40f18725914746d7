"""What travellers ask of the desk."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.travel.tools import (
    CITIES,
    CLOCK,
    LATE_MINUTES,
    MOST_BAGS,
    TODAY,
    Fare,
    Flight,
    FlightBooking,
    Hotel,
    HotelBooking,
    Traveller,
    TravelTools,
    nights,
)
from tracemill.trace import Json, Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")
FARES: tuple[Fare, ...] = ("light", "standard", "flex")
BOTH_ENDS_OF_JUNE = ("2026-06-01", "2026-06-30")
ELSEWHERE = (
    "a visa for Brazil",
    "a discount on my next flight",
    "a rental car in Lisbon",
    "a table in a good restaurant in Lyon",
    "travel insurance",
    "train tickets from Vienna to Graz",
    "a packing list for Oslo in winter",
)


def spoken(day: str) -> str:
    """'3 June', as people say it; a time after the day is left out."""
    return f"{int(day[8:10])} {date.fromisoformat(day[:10]):%B}"


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


class Travel(TravelTools):
    # --- parts that several goals share ---

    def _identify(self, g: Draft, traveller: Traveller) -> None:
        """By e-mail or by name and date of birth; each way can stand in for the other."""
        name, born, email = traveller.name, traveller.birth_date, traveller.email
        g.subgoal("identify the traveller", "the traveller's id is known")
        why = "the traveller has to be identified before any booking is touched"
        g.know(email=email, label="e-mail address")
        g.know(name=name, label="full name")
        g.know(birth_date=born, label="date of birth")
        if g.rng.random() < 0.5:
            g.put(who=f"I'm registered as {email}")
            g.call("find_traveller", email=email, why=why, fallback=("find_traveller_by_name", {"name": name, "birth_date": born}))
        else:
            g.put(who=f"I'm {name}, born on {born}")
            g.call("find_traveller_by_name", name=name, birth_date=born, why=why, fallback=("find_traveller", {"email": email}))

    def _coming(self, *fares: str) -> list[FlightBooking]:
        return [b for b in self.flight_bookings if b.status == "confirmed" and (not fares or b.fare in fares)]

    def _coming_trips(self) -> dict[str, list[FlightBooking | HotelBooking]]:
        """Confirmed bookings, flights and then hotels, by traveller."""
        found: dict[str, list[FlightBooking | HotelBooking]] = {}
        for booking in (*self.flight_bookings, *self.hotel_bookings):
            if booking.status == "confirmed":
                found.setdefault(booking.traveller_id, []).append(booking)
        return found

    def _flown(self) -> list[FlightBooking]:
        return [b for b in self.flight_bookings if b.status == "flown"]

    def _on_route(self, origin: str, destination: str, first: str, last: str) -> list[Flight]:
        """Coming flights that still have a seat."""
        flights = self.flights.where(origin=origin, destination=destination)
        return [f for f in flights if first <= f.day <= last and f.seats_left and f.departs_at > CLOCK]

    def _search(self, g: Draft, origin: str, destination: str, day: str, *, why: str) -> None:
        g.call("search_flights", origin=origin, destination=destination, first_day=day, why=why)

    def _cheapest(self, g: Draft, flights: Iterable[Flight]) -> Flight:
        """By light fare, and so by every fare. Only where one alone is the cheapest."""
        ranked = sorted(flights, key=lambda f: f.fares.light)
        g.need(ranked and (len(ranked) == 1 or ranked[0].fares.light < ranked[1].fares.light))
        return ranked[0]

    def _cheapest_hotel(self, g: Draft, hotels: Iterable[Hotel]) -> Hotel:
        ranked = sorted((h for h in hotels if h.rooms_free), key=lambda h: h.nightly_price)
        g.need(ranked and (len(ranked) == 1 or ranked[0].nightly_price < ranked[1].nightly_price))
        return ranked[0]

    def _book(self, g: Draft, traveller: Traveller, flight: Flight, fare: Fare, *, why: str, what: str, **more: Json) -> dict[str, Json]:
        """Book a flight and expect the booking and one seat less."""
        left = flight.seats_left
        check = ("list_bookings", {"traveller_id": traveller.id})
        done: dict[str, Json] = g.call(
            "book_flight", traveller_id=traveller.id, flight_id=flight.id, fare=fare, why=why, confirm=what, check=check, **more
        )
        price = done["fare_paid"]
        g.expect("flight_bookings", done["booking_id"], traveller_id=traveller.id, flight_id=flight.id, fare=fare, fare_paid=price)
        g.expect("flights", flight.id, seats_left=left - 1)
        return done

    def _book_room(self, g: Draft, traveller: Traveller, hotel: Hotel, check_in: str, check_out: str, *, why: str) -> dict[str, Json]:
        stay = nights(check_in, check_out)
        what = f"book {hotel.name} from {spoken(check_in)} to {spoken(check_out)} for {hotel.nightly_price * stay:.2f} in all"
        done: dict[str, Json] = g.call(
            "book_hotel",
            traveller_id=traveller.id,
            hotel_id=hotel.id,
            check_in=check_in,
            check_out=check_out,
            why=why,
            confirm=what,
            check=("list_bookings", {"traveller_id": traveller.id}),
        )
        g.expect("hotel_bookings", done["booking_id"], hotel_id=hotel.id, check_in=check_in, check_out=check_out, charged=done["charged"])
        g.expect("hotels", hotel.id, rooms_free=hotel.rooms_free - 1)
        return done

    def _cancel(self, g: Draft, booking: FlightBooking | HotelBooking, *, why: str) -> None:
        refund = self._refund(booking)[0]
        what = f"cancel booking {booking.id} for good and refund {refund:.2f} to {booking.paid_with}"
        g.call("cancel_booking", booking_id=booking.id, why=why, confirm=what, check=("get_booking", {"booking_id": booking.id}))
        table = "flight_bookings" if isinstance(booking, FlightBooking) else "hotel_bookings"
        g.expect(table, booking.id, status="cancelled", refund=refund)
        g.tell(booking.id)

    def _move(self, g: Draft, booking: FlightBooking, new: Flight, *, why: str) -> float:
        """Quote the change, then make it. What it cost."""
        first = "the cost of the change has to be known before it is made"
        quote = g.call("quote_change", booking_id=booking.id, new_flight_id=new.id, why=first)
        cost = float(quote["cost"])
        g.subgoal("make the change", f"booking {booking.id} is on the new flight", constraints=range(len(g.constraints)))
        what = f"move booking {booking.id} to flight {new.id} at {new.time} on {spoken(new.day)} for {cost:.2f}"
        check = ("get_booking", {"booking_id": booking.id})
        g.call("change_flight", booking_id=booking.id, new_flight_id=new.id, why=why, confirm=what, check=check)
        g.expect("flight_bookings", booking.id, status="confirmed", flight_id=new.id, charged=booking.charged + cost)
        g.expect("flights", new.id, seats_left=new.seats_left - 1)
        g.put(new_flight=new.id, new_time=new.time, cost=f"{cost:.2f}")
        g.tell(booking.id, new.id, cost)
        return cost

    # --- look-ups ---

    @goal(kinds=NO_PLAN)
    def flight_times(self, g: Draft) -> None:
        """One call: when does it leave, and what is a fare?"""
        flight = g.pick(f for f in self.flights if f.departs_at > CLOCK)
        fare = g.rng.choice(FARES)
        price = flight.fares.of(fare)
        g.know(flight_id=flight.id, label="flight number")
        g.put(day=spoken(flight.day), time=flight.time, fare=fare, price=f"{price:.2f}")
        g.put(origin=flight.origin, destination=flight.destination)
        g.call("get_flight", flight_id=flight.id, why="times and fares are in the flight's record")
        g.tell(flight.time, flight.day[:10], price)

    @goal(kinds=NO_PLAN)
    def room_for_little(self, g: Draft) -> None:
        """One call: the cheapest hotel of a city that serves breakfast and has a room."""
        city = g.rng.choice(CITIES)
        hotel = self._cheapest_hotel(g, (h for h in self.hotels if h.city == city and h.breakfast))
        g.put(city=city, hotel=hotel.name, price=f"{hotel.nightly_price:.2f}", stars=hotel.stars)
        g.call("search_hotels", city=city, breakfast=True, why=f"the hotels in {city} that serve breakfast have to be compared")
        g.tell(hotel.name, hotel.nightly_price)

    @goal(kinds=NO_PLAN)
    def cheaper_city(self, g: Draft) -> None:
        """Independent look-ups, made in parallel: which of two cities costs less, flight and two nights together?"""
        origin = g.pick(c for c in CITIES if len({f.destination for f in self.flights if f.origin == c}) >= 2)
        first, last = BOTH_ENDS_OF_JUNE
        cities = g.some(sorted({f.destination for f in self.flights if f.origin == origin}), 2)
        sums: dict[str, float] = {}
        for city in cities:
            flights, rooms = self._on_route(origin, city, first, last), [h for h in self.hotels.where(city=city) if h.rooms_free]
            g.need(flights and rooms)
            sums[city] = min(f.fares.light for f in flights) + 2 * min(h.nightly_price for h in rooms)
        g.need(sums[cities[0]] != sums[cities[1]])
        best, other = sorted(cities, key=lambda c: sums[c])
        with g.parallel():
            for city in cities:
                why = f"the cheapest light fare from {origin} to {city} in June is needed"
                g.call("search_flights", origin=origin, destination=city, first_day=first, last_day=last, why=why)
                g.call("search_hotels", city=city, why=f"the cheapest free room in {city} is needed")
        g.put(origin=origin, one=cities[0], two=cities[1], best=best, other=other, low=f"{sums[best]:.2f}", high=f"{sums[other]:.2f}")
        g.tell(best, sums[best], sums[other])

    @goal()
    def best_refund(self, g: Draft) -> None:
        """Read only: what would come back for each coming booking, and for which the most?"""
        coming = g.pick(bookings for bookings in self._coming_trips().values() if 2 <= len(bookings) <= 5)
        traveller = self.travellers[coming[0].traveller_id]
        refunds = {b.id: self._refund(b)[0] for b in coming}
        top = max(coming, key=lambda b: refunds[b.id])
        g.need(list(refunds.values()).count(refunds[top.id]) == 1)
        self._identify(g, traveller)
        g.subgoal("find the coming bookings", "the numbers of all confirmed bookings are known")
        g.call("list_bookings", traveller_id=traveller.id, why="all bookings that are still to come have to be found")
        rule = g.constraint("nothing is cancelled, refunds are only looked up", "nothing is cancelled")
        g.subgoal("look up each refund", "the refund for every confirmed booking is known, and nothing is cancelled", constraints=[rule])
        with g.parallel():
            for booking in coming:
                g.call("quote_cancellation", booking_id=booking.id, why=f"what {booking.id} would give back has to be known")
        g.forbid("cancel_booking", "the traveller only asked what would be refunded")
        g.put(booking_id=top.id, refund=f"{refunds[top.id]:.2f}", total=f"{sum(refunds.values()):.2f}", count=len(coming))
        g.tell(top.id, refunds[top.id])

    # --- booking ---

    @goal()
    def fly_out(self, g: Draft) -> None:
        """The cheapest flight that meets a condition on time; the date may be missing, or the condition come midway."""
        sample = g.pick(f for f in self.flights if f.departs_at > CLOCK)
        flights = self._on_route(sample.origin, sample.destination, sample.day, sample.day)
        late_half = g.rng.random() < 0.5
        hour = g.rng.choice(("12:00", "13:00", "15:00", "17:00"))
        word = "after" if late_half else "before"
        fits = [f for f in flights if (f.time > hour) == late_half]
        g.need(fits)
        flight = self._cheapest(g, fits)
        traveller = g.pick(self.travellers)
        fare = g.rng.choice(FARES)
        shape = g.rng.choice(("", "vague", "open"))
        g.variant(shape)
        g.know(date=flight.day, label="travel date", withheld=shape == "vague")
        g.put(origin=flight.origin, destination=flight.destination, day=spoken(flight.day), fare=fare, word=word, hour=hour)
        self._identify(g, traveller)
        rule = g.constraint(f"the flight leaves {word} {hour}", hour)
        g.subgoal("find the flights of the day", f"the flights to {flight.destination} with fares and free seats are known")
        self._search(g, flight.origin, flight.destination, flight.day, why="flights, fares and free seats of that day have to be compared")
        if shape == "open":
            g.interject(f"I forgot: it has to leave {word} {hour}.", constraint=rule)
        g.subgoal("book the flight", f"the cheapest flight {word} {hour} with a seat left is booked", constraints=[rule])
        price = flight.fares.of(fare)
        what = f"book flight {flight.id} at {flight.time} on {spoken(flight.day)} in the {fare} fare for {price:.2f}"
        why = f"{flight.id} is the cheapest that leaves {word} {hour} and has a seat left"
        done = self._book(g, traveller, flight, fare, why=why, what=what)
        g.put(flight_id=flight.id, time=flight.time, booking_id=done["booking_id"], price=f"{price:.2f}", paid_with=done["paid_with"])
        g.tell(done["booking_id"], flight.id, flight.time, price)

    @goal()
    def spend_voucher(self, g: Draft) -> None:
        """The cheapest flight of a day, paid by the one voucher that is still good."""
        good = [v for v in self.vouchers if v.balance and v.expires_on >= TODAY.isoformat()]
        voucher = g.pick(v for v in good if [w.traveller_id for w in good].count(v.traveller_id) == 1)
        traveller = self.travellers[voucher.traveller_id]
        sample = g.pick(f for f in self.flights if f.departs_at > CLOCK and f.seats_left)
        flight = self._cheapest(g, self._on_route(sample.origin, sample.destination, sample.day, sample.day))
        fare = g.rng.choice(FARES)
        g.put(origin=flight.origin, destination=flight.destination, day=spoken(flight.day), fare=fare, time=flight.time)
        self._identify(g, traveller)
        rule = g.constraint("the valid voucher is used as far as it goes", "voucher")
        g.subgoal("find the flight and the voucher", "the cheapest flight with a seat and the valid voucher are known")
        with g.parallel():
            self._search(g, flight.origin, flight.destination, flight.day, why="the cheapest flight of that day has to be found")
            g.call("list_vouchers", traveller_id=traveller.id, why="the voucher that is still valid has to be found")
        price = flight.fares.of(fare)
        rest = max(0.0, price - voucher.balance)
        g.subgoal("book with the voucher", "the flight is booked and the voucher's balance is lower", constraints=[rule])
        what = f"book flight {flight.id} at {flight.time} for {price:.2f}, with voucher {voucher.id} paying {price - rest:.2f} of it"
        why = "the cheapest flight and a valid voucher are known"
        done = self._book(g, traveller, flight, fare, why=why, what=what, voucher_id=voucher.id)
        g.expect("vouchers", voucher.id, balance=voucher.balance - (price - rest))
        g.put(flight_id=flight.id, booking_id=done["booking_id"], price=f"{price:.2f}", covered=f"{price - rest:.2f}", rest=f"{rest:.2f}")
        g.put(voucher_id=voucher.id)
        g.tell(done["booking_id"], voucher.id, rest)

    @goal()
    def whole_trip(self, g: Draft) -> None:
        """There, back, a bed and bags: ten calls. In half of the cases the wish for breakfast comes midway."""
        days: dict[tuple[str, str], set[str]] = {}
        for flight in self.flights:
            if flight.seats_left and flight.departs_at > CLOCK:
                days.setdefault((flight.origin, flight.destination), set()).add(flight.day)
        trips = [
            (origin, city, out_day, back_day)
            for (origin, city), there in sorted(days.items())
            for out_day in sorted(there)
            for back_day in sorted(days.get((city, origin), ()))
            if 1 <= nights(out_day, back_day) <= 12
        ]
        origin, city, out_day, back_day = g.pick(trips)
        out = self._cheapest(g, self._on_route(origin, city, out_day, out_day))
        back = self._cheapest(g, self._on_route(city, origin, back_day, back_day))
        hotel = self._cheapest_hotel(g, (h for h in self.hotels if h.city == city and h.breakfast))
        traveller = g.pick(self.travellers)
        fare = g.rng.choice(FARES[:2])
        late = g.rng.random() < 0.5
        g.put(origin=out.origin, city=city, out_day=spoken(out.day), back_day=spoken(back.day), fare=fare)
        if late:
            g.variant("open")
        self._identify(g, traveller)
        meal = g.constraint("the hotel serves breakfast", "breakfast")
        low = g.constraint(f"both flights are the cheapest of their day in the {fare} fare", "cheapest", fare)
        g.subgoal("find flights, hotels and the tier", "the choices for both flights and the room are known, and the tier for the bags")
        with g.parallel():
            self._search(g, out.origin, city, out.day, why="the cheapest flight out has to be found")
            self._search(g, city, out.origin, back.day, why="the cheapest flight back has to be found")
            g.call("search_hotels", city=city, why=f"the hotels in {city} have to be compared")
            g.call("get_traveller", traveller_id=traveller.id, why="the tier decides what the bags cost")
        if late:
            g.interject("By the way, the hotel must serve breakfast.", constraint=meal)
        g.subgoal("book the flights", f"the cheapest flight each way is booked in the {fare} fare", constraints=[low])
        total = 0.0
        for flight, way in ((out, "out"), (back, "back")):
            price = flight.fares.of(fare)
            what = f"book flight {flight.id} at {flight.time} on {spoken(flight.day)} in the {fare} fare for {price:.2f}"
            done = self._book(g, traveller, flight, fare, why=f"{flight.id} is the cheapest flight {way} with a seat left", what=what)
            total += price
            g.put(**{way: done["booking_id"], f"{way}_flight": flight.id})
            g.tell(done["booking_id"])
        g.subgoal("book the hotel", "the cheapest room in a hotel with breakfast is booked", constraints=[meal])
        room = self._book_room(g, traveller, hotel, out.day, back.day, why=f"{hotel.name} is the cheapest with breakfast and a free room")
        g.tell(room["booking_id"])
        g.subgoal("add the bags", "both flight bookings hold one bag", after=["book the flights"])
        for way in ("out", "back"):
            total += self._add_bags(g, str(g.values[way]), 1)
        total += float(room["charged"])
        g.put(room=room["booking_id"], hotel=hotel.name, total=f"{total:.2f}")
        g.tell(total)

    def _add_bags(self, g: Draft, booking_id: str, bags: int) -> float:
        booking = self.flight_bookings[booking_id]
        cost = self._cost_of_bags(booking, bags)
        number = "1 bag" if bags == 1 else f"{bags} bags"
        check = ("get_booking", {"booking_id": booking_id})
        what = f"add {number} to booking {booking_id} for {cost:.2f}"
        why = f"fare and tier say what {number} on {booking_id} will cost"
        g.call("add_baggage", booking_id=booking_id, bags=bags, why=why, confirm=what, check=check)
        g.expect("flight_bookings", booking_id, bags=booking.bags + bags, charged=booking.charged + cost)
        return cost

    # --- what goes with a booking ---

    @goal()
    def extra_bags(self, g: Draft) -> None:
        """The price follows from fare and tier. How many bags may have to be asked for."""
        booking = g.pick(b for b in self._coming() if b.bags + 1 <= MOST_BAGS)
        bags = g.rng.randint(1, min(3, MOST_BAGS - booking.bags))
        vague = g.rng.random() < 0.4
        traveller = self.travellers[booking.traveller_id]
        g.know(booking_id=booking.id, label="booking number")
        g.know(bags=bags, label="number of bags", withheld=vague)
        g.put(number="a bag" if bags == 1 else f"{bags} bags")
        if vague:
            g.variant("vague")
        self._identify(g, traveller)
        most = g.constraint(f"a booking holds {MOST_BAGS} bags at most", MOST_BAGS)
        g.subgoal("learn fare and tier", f"the fare, the tier and the bags there are, {MOST_BAGS} at most, are known", constraints=[most])
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="the fare and the bags booked so far are in the booking")
            g.call("get_traveller", traveller_id=traveller.id, why="the loyalty tier decides how many bags are free")
        g.subgoal("add the bags", "the booking holds the new bags and the cost is known")
        cost = self._add_bags(g, booking.id, bags)
        g.put(cost=f"{cost:.2f}", total="1 bag" if booking.bags + bags == 1 else f"{booking.bags + bags} bags")
        g.tell(booking.id, cost, booking.bags + bags)

    @goal()
    def front_seat(self, g: Draft) -> None:
        """The free seat furthest to the front, at the window or on the aisle, which may be said only midway."""
        kind = g.rng.choice(("window", "aisle"))
        booking = g.pick(b for b in self._coming() if b.seat is None)
        flight, traveller = self.flights[booking.flight_id], self.travellers[booking.traveller_id]
        seats = sorted((int(s[:-1]), s) for s in flight.free_seats if s[-1] in ("AF" if kind == "window" else "CD"))
        g.need(seats and (len(seats) == 1 or seats[0][0] < seats[1][0]))
        seat = seats[0][1]
        late = g.rng.random() < 0.4
        g.know(booking_id=booking.id, label="booking number")
        a_kind = "a window" if kind == "window" else "an aisle"
        g.put(kind=kind, a_kind=a_kind, flight_id=flight.id, seat=seat)
        if late:
            g.variant("open")
        self._identify(g, traveller)
        rule = g.constraint(f"the seat is {a_kind} seat", kind)
        g.subgoal("learn flight, fare and tier", "the flight is known, and whether the seat costs anything")
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="the flight and the fare are in the booking")
            g.call("get_traveller", traveller_id=traveller.id, why="the tier decides whether a seat costs anything")
        if late:
            g.interject(f"I should add that it must be {a_kind} seat.", constraint=rule)
        g.subgoal("find the free seats", f"the free {kind} seat furthest to the front is known", constraints=[rule])
        g.call("get_flight", flight_id=flight.id, why="the seats that are still free are in the flight's record")
        cost = self._cost_of_seat(booking)
        g.subgoal("choose the seat", f"the booking holds {a_kind} seat", constraints=[rule])
        check = ("get_booking", {"booking_id": booking.id})
        what = f"choose seat {seat} for booking {booking.id} at {cost:.2f}"
        why = f"{seat} is the free {kind} seat furthest to the front"
        g.call("select_seat", booking_id=booking.id, seat=seat, why=why, confirm=what, check=check)
        g.expect("flight_bookings", booking.id, seat=seat, charged=booking.charged + cost)
        g.put(cost=f"{cost:.2f}")
        g.tell(booking.id, seat, cost)

    @goal()
    def new_phone(self, g: Draft) -> None:
        """The number is not said until it is asked for."""
        traveller = g.pick(self.travellers)
        phone = f"+43 6{g.rng.randint(10, 99)} {g.rng.randint(100000, 999999)}"
        vague = g.rng.random() < 0.6
        g.know(phone=phone, label="new phone number", withheld=vague)
        if vague:
            g.variant("vague")
        self._identify(g, traveller)
        keep = g.constraint("the e-mail address stays as it is", "e-mail")
        g.subgoal("look at the profile", "the present phone number and e-mail address are known")
        g.call("get_traveller", traveller_id=traveller.id, why="the profile has to be seen before it is changed")
        g.subgoal("change the number", "the profile holds the new phone number and the same e-mail address", constraints=[keep])
        check = ("get_traveller", {"traveller_id": traveller.id})
        what = f"change the phone number from {traveller.phone} to {phone}"
        why = "the profile has been seen and the new number is known"
        g.call("update_contact", traveller_id=traveller.id, phone=phone, why=why, confirm=what, check=check)
        g.expect("travellers", traveller.id, phone=phone, email=traveller.email)
        g.put(old_phone=traveller.phone)
        g.tell(phone)

    # --- changing and cancelling ---

    @goal()
    def drop_booking(self, g: Draft) -> None:
        """A flight or a hotel is cancelled, with the refund that its terms give. The number may have to be asked for."""
        pool: list[FlightBooking | HotelBooking] = [*self._coming(), *self.hotel_bookings.where(status="confirmed")]
        booking = g.pick(b for b in pool if self._refund(b)[0])
        vague = g.rng.random() < 0.4
        g.know(booking_id=booking.id, label="booking number", withheld=vague)
        g.put(thing="flight" if isinstance(booking, FlightBooking) else "hotel")
        if vague:
            g.variant("vague")
        self._identify(g, self.travellers[booking.traveller_id])
        g.subgoal("look at the booking", "the booking is seen to be confirmed")
        g.call("get_booking", booking_id=booking.id, why="the booking has to be seen before it is given up")
        g.subgoal("learn the refund", "the refund and its rule are known")
        g.call("quote_cancellation", booking_id=booking.id, why="the traveller should know the refund beforehand")
        g.subgoal("cancel the booking", "the booking is cancelled and the refund is booked")
        g.put(refund=f"{self._refund(booking)[0]:.2f}", paid_with=booking.paid_with)
        g.tell(self._refund(booking)[0])
        self._cancel(g, booking, why="the refund is known and the traveller wants the booking gone")

    @goal()
    def other_day(self, g: Draft) -> None:
        """To another day: the first flight after an hour that may be named only midway."""
        booking = g.pick(self._coming("standard", "flex"))
        old = self.flights[booking.flight_id]
        days = sorted({f.day for f in self._on_route(old.origin, old.destination, TODAY.isoformat(), "2026-12-31") if f.day != old.day})
        day = g.pick(days)
        hour = g.rng.choice(("08:00", "10:00", "12:00", "14:00"))
        new = min((f for f in self._on_route(old.origin, old.destination, day, day) if f.time > hour), key=lambda f: f.time, default=None)
        g.need(new is not None)
        assert new is not None
        late = g.rng.random() < 0.5
        g.know(booking_id=booking.id, label="booking number")
        g.know(day=spoken(day), label="new travel day")
        g.put(hour=hour)
        if late:
            g.variant("open")
        self._identify(g, self.travellers[booking.traveller_id])
        rule = g.constraint(f"the new flight leaves after {hour}", hour)
        g.subgoal("look at the booking", "the route and the fare are known, and that the fare allows a change")
        g.call("get_booking", booking_id=booking.id, why="route and fare decide whether and how the flight can be changed")
        if late:
            g.interject(f"Please note that I can't be at the airport early: it must leave after {hour}.", constraint=rule)
        g.subgoal("find the new flight", f"the first flight after {hour} with a seat left is known", constraints=[rule])
        self._search(g, old.origin, old.destination, day, why="the flights of the new day have to be seen")
        g.subgoal("learn the cost", "fee and fare difference are known")
        self._move(g, booking, new, why=f"{new.id} is the first flight after {hour} and the traveller knows the cost")

    @goal()
    def keep_the_trip(self, g: Draft) -> None:
        """Cancel, no, rather move it: the user changes their mind once the refund is on the table."""
        booking = g.pick(b for b in self._coming("standard", "flex") if self._refund(b)[0])
        old = self.flights[booking.flight_id]
        free = [f for f in self._on_route(old.origin, old.destination, TODAY.isoformat(), "2026-12-31") if f.day != old.day]
        day = g.pick(sorted({f.day for f in free}))
        new = min((f for f in free if f.day == day), key=lambda f: f.time)
        g.know(booking_id=booking.id, label="booking number")
        g.put(day=spoken(day))
        self._identify(g, self.travellers[booking.traveller_id])
        g.subgoal("look at the booking and its refund", "route, fare and refund are known")
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="the booking has to be seen before anything is done with it")
            g.call("quote_cancellation", booking_id=booking.id, why="the traveller should know the refund beforehand")
        keep = g.constraint(f"booking {booking.id} is kept, not cancelled", "kept")
        says = f"Hm, on second thoughts, don't cancel it. Move me to the first flight with a free seat on {spoken(day)} instead."
        g.interject(says, constraint=keep, changes_goal=True)
        g.subgoal("find the new flight", f"the first flight on {spoken(day)} with a free seat is known")
        why = f"the first flight on {spoken(day)} with a free seat has to be found"
        self._search(g, old.origin, old.destination, day, why=why)
        g.subgoal("learn the cost", "fee and fare difference are known")
        self._move(g, booking, new, why=f"the traveller now wants to fly on {spoken(day)}, and {new.id} is the first with a seat")
        g.forbid("cancel_booking", "the traveller no longer wants that")

    @goal()
    def better_bed(self, g: Draft) -> None:
        """Another hotel for the same nights, booked before the old one is given up; the condition may come midway."""
        booking = g.pick(b for b in self.hotel_bookings if b.status == "confirmed" and self._refund(b)[0] == b.charged)
        old = self.hotels[booking.hotel_id]
        hotel = self._cheapest_hotel(g, (h for h in self.hotels if h.city == old.city and h.breakfast and h.id != old.id))
        late = g.rng.random() < 0.5
        g.know(booking_id=booking.id, label="booking number")
        g.put(old=old.name, city=old.city)
        if late:
            g.variant("open")
        traveller = self.travellers[booking.traveller_id]
        self._identify(g, traveller)
        meal = g.constraint("the new hotel serves breakfast", "breakfast")
        full = g.constraint("the old booking is cancelled only if it is refunded in full", "in full")
        g.subgoal("look at the old booking", "its city, its nights and that it is refunded in full are known", constraints=[full])
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="city and nights are in the booking")
            g.call("quote_cancellation", booking_id=booking.id, why="it has to be sure that the old booking is refunded in full")
        if late:
            g.interject("And the new place should serve breakfast, please.", constraint=meal)
        g.subgoal("find the new hotel", "the cheapest other hotel with breakfast and a free room is known", constraints=[meal])
        why = f"the other hotels in {old.city} that serve breakfast have to be compared"
        g.call("search_hotels", city=old.city, breakfast=True, why=why)
        g.subgoal("book the new hotel", "the new booking covers the same nights")
        why = f"{hotel.name} is the cheapest other one with breakfast and a free room"
        done = self._book_room(g, traveller, hotel, booking.check_in, booking.check_out, why=why)
        g.subgoal("cancel the old booking", "the old booking is cancelled and refunded in full", constraints=[full])
        self._cancel(g, booking, why="the new room is certain and the old one is refunded in full")
        g.put(hotel=hotel.name, new_id=done["booking_id"], total=f"{done['charged']:.2f}", refund=f"{booking.charged:.2f}")
        g.tell(done["booking_id"], float(done["charged"]), booking.charged)

    @goal()
    def call_off_trips(self, g: Draft) -> None:
        """Everything that is refunded in full goes, the rest stays: seven calls and more."""
        many = [bookings for bookings in self._coming_trips().values() if 3 <= len(bookings) <= 5]
        coming = g.pick(m for m in many if 0 < sum(self._refund(b)[0] == b.charged for b in m) < len(m))
        traveller = self.travellers[coming[0].traveller_id]
        full = [b for b in coming if self._refund(b)[0] == b.charged]
        rest = [b for b in coming if b not in full]
        back = sum(b.charged for b in full)
        self._identify(g, traveller)
        rule = g.constraint("only bookings that are refunded in full are cancelled", "in full")
        g.subgoal("find the coming bookings", "the numbers of all confirmed bookings are known")
        g.call("list_bookings", traveller_id=traveller.id, why="all bookings that are still to come have to be found")
        g.subgoal("learn each refund", "it is known which bookings are refunded in full", constraints=[rule])
        with g.parallel():
            for booking in coming:
                g.call("quote_cancellation", booking_id=booking.id, why=f"it has to be known whether {booking.id} is refunded in full")
        g.subgoal("cancel those bookings", "each booking that is refunded in full is cancelled", constraints=[rule])
        for booking in full:
            self._cancel(g, booking, why=f"{booking.id} is refunded in full and the traveller stays at home")
        for booking in rest:
            g.forbid("cancel_booking", "it is not refunded in full", booking_id=booking.id)
        g.put(gone=listed([b.id for b in full]), kept=listed([b.id for b in rest]), back=f"{back:.2f}")
        g.tell(back, *(b.id for b in rest))

    @goal()
    def late_arrival(self, g: Draft) -> None:
        """A voucher for a late flight. The booking is found by its route, the amount by fare and tier."""
        booking = g.pick(b for b in self._flown() if self.flights[b.flight_id].delay_minutes >= LATE_MINUTES)
        flight, traveller = self.flights[booking.flight_id], self.travellers[booking.traveller_id]
        due = self._voucher_due(booking)
        g.put(origin=flight.origin, destination=flight.destination, day=spoken(flight.day))
        self._identify(g, traveller)
        g.subgoal("find the booking", f"the booking for the flight of {spoken(flight.day)} is known")
        g.call("list_bookings", traveller_id=traveller.id, why=f"the booking for the flight of {spoken(flight.day)} has to be found")
        three = g.constraint("a voucher is due only for a delay of 3 hours or more", "3 hours")
        success = "the delay is seen to be 3 hours or more, and the amount is clear"
        g.subgoal("learn delay, fare and tier", success, constraints=[three])
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="the fare paid is in the booking")
            g.call("get_flight", flight_id=flight.id, why="the delay is in the flight's record")
            g.call("get_traveller", traveller_id=traveller.id, why="the tier decides about the share")
        g.subgoal("issue the voucher", "the voucher has a number and the right amount")
        note = f"For the late arrival of {flight.id}, with our apologies."
        check = ("list_vouchers", {"traveller_id": traveller.id})
        what = f"issue a voucher of {due:.2f} for booking {booking.id}"
        why = f"the flight was {flight.delay_minutes} minutes late, which earns a {traveller.tier} member {due:.2f}"
        done = g.call("issue_voucher", booking_id=booking.id, amount=due, note=note, why=why, confirm=what, check=check)
        g.expect("vouchers", done["voucher_id"], traveller_id=traveller.id, value=due, for_booking=booking.id)
        g.expect("flight_bookings", booking.id, late_voucher=done["voucher_id"])
        g.put(voucher_id=done["voucher_id"], due=f"{due:.2f}", delay=flight.delay_minutes, until=spoken(done["expires_on"]) + " 2027")
        g.put(booking_id=booking.id)
        g.tell(done["voucher_id"], due)

    # --- what is declined ---

    @goal(kinds=("tool_call",))
    def refuse_light_refund(self, g: Draft) -> None:
        """A light fare brings no money back, so the booking stays."""
        booking = g.pick(b for b in self._coming("light") if not self._refund(b)[0])
        g.know(booking_id=booking.id, label="booking number")
        self._identify(g, self.travellers[booking.traveller_id])
        with g.parallel():
            g.call("get_booking", booking_id=booking.id, why="fare and time of booking decide about a refund")
            g.call("quote_cancellation", booking_id=booking.id, why="it shows what would be refunded")
        g.refuse()
        g.forbid("cancel_booking", "a light fare is not refunded, and the traveller wants to keep it then")
        g.put(booked_on=spoken(booking.booked_at))
        g.tell("light", ("refund", "money back"), CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_light_change(self, g: Draft) -> None:
        """A light fare cannot be moved to another day."""
        booking = g.pick(b for b in self._coming("light") if not self._refund(b)[0])
        flight = self.flights[booking.flight_id]
        day = (date.fromisoformat(flight.day) + timedelta(days=g.rng.randint(1, 6))).isoformat()
        g.know(booking_id=booking.id, label="booking number")
        g.put(day=spoken(day))
        self._identify(g, self.travellers[booking.traveller_id])
        g.call("get_booking", booking_id=booking.id, why="the fare decides whether the flight can be changed")
        g.refuse()
        g.forbid("change_flight", "a light fare cannot be changed")
        g.forbid("cancel_booking", "nobody asked for that")
        g.tell("light", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_short_delay(self, g: Draft) -> None:
        """Late, but not three hours: no voucher."""
        booking = g.pick(b for b in self._flown() if 0 < self.flights[b.flight_id].delay_minutes < LATE_MINUTES)
        flight = self.flights[booking.flight_id]
        g.know(booking_id=booking.id, label="booking number")
        self._identify(g, self.travellers[booking.traveller_id])
        g.call("get_booking", booking_id=booking.id, why="the flight is named in the booking")
        g.call("get_flight", flight_id=flight.id, why="the delay decides about a voucher")
        g.refuse()
        g.forbid("issue_voucher", "the flight was less than 3 hours late")
        g.put(delay=flight.delay_minutes, flight_id=flight.id)
        g.tell(flight.delay_minutes, ("3 hours", "180 minutes"), CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        g.put(thing=g.rng.choice(ELSEWHERE))
        g.refuse()
        g.tell(CANNOT)
