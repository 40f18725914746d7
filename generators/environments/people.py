"""Names and places that the built-in worlds draw from; all of them made up or generic."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST = (
    "Amara", "Anton", "Aiko", "Bruno", "Carmen", "Chidi", "Clara", "Dario", "Dilnoza", "Elif", "Emeka", "Erik", "Farida",
    "Felix", "Giulia", "Hana", "Hugo", "Ines", "Ivan", "Jamal", "Jana", "Jonas", "Kavya", "Kofi", "Lars", "Leila", "Lucia",
    "Malik", "Marta", "Mei", "Milan", "Nadia", "Noah", "Nora", "Olga", "Omar", "Paula", "Pedro", "Priya", "Quentin", "Rosa",
    "Ruben", "Sana", "Selma", "Stefan", "Tariq", "Tomas", "Uma", "Vera", "Wanda", "Xavier", "Yara", "Yusuf", "Zoe",
)  # fmt: skip
LAST = (
    "Abbott", "Adeyemi", "Almeida", "Andersen", "Banerjee", "Bauer", "Brandt", "Castillo", "Chen", "Costa", "Dubois", "Eriksen",
    "Farah", "Ferrari", "Fischer", "Garcia", "Haddad", "Hansen", "Ibrahim", "Ito", "Jansen", "Kaya", "Keller", "Kim", "Kowalski",
    "Kumar", "Larsen", "Lopez", "Mbeki", "Meyer", "Moreau", "Mori", "Nakamura", "Novak", "Okafor", "Olsen", "Patel", "Pereira",
    "Popov", "Rahman", "Ricci", "Rossi", "Santos", "Sato", "Schmidt", "Silva", "Singh", "Sokolov", "Suarez", "Tanaka", "Vargas",
    "Weber", "Wong", "Yilmaz", "Zhang",
)  # fmt: skip
STREETS = ("Oak", "Mill", "Lake", "Hill", "Park", "Cedar", "River", "Station", "Garden", "Church", "Harbour", "Meadow", "Bridge", "North")
CITIES = (
    ("Lisbon", "1100"), ("Porto", "4000"), ("Vienna", "1010"), ("Graz", "8010"), ("Zurich", "8001"), ("Lyon", "69001"),
    ("Ghent", "9000"), ("Oslo", "0150"), ("Turku", "20100"), ("Cork", "T12"), ("Leeds", "LS1"), ("Austin", "78701"),
    ("Denver", "80202"), ("Toronto", "M5H"), ("Seville", "41001"), ("Bologna", "40121"), ("Gdansk", "80801"), ("Brno", "60200"),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    first: str
    last: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def handle(self) -> str:
        return f"{self.first}.{self.last}".lower()


def people(rng: random.Random, count: int) -> list[Person]:
    """Different people."""
    pairs = rng.sample(range(len(FIRST) * len(LAST)), count)
    return [Person(FIRST[pair % len(FIRST)], LAST[pair // len(FIRST)]) for pair in pairs]


def street(rng: random.Random) -> str:
    return f"{rng.randint(1, 240)} {rng.choice(STREETS)} {rng.choice(('Street', 'Road', 'Lane', 'Avenue'))}"
