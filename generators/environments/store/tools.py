"""The retail store: customers, products, orders, and the desk's tools."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.people import CITIES, people, street
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

TODAY = date(2026, 5, 14)
RETURN_DAYS = 30
GOODS: dict[str, tuple[tuple[str, float], ...]] = {
    "lamp": (("Aster desk lamp", 39.0), ("Boreal floor lamp", 89.5), ("Comet clip lamp", 24.9), ("Dune table lamp", 54.0), ("Ember lantern", 31.5)),
    "kettle": (("Brook kettle", 29.9), ("Cinder kettle", 44.5), ("Gale travel kettle", 21.0), ("Hearth kettle", 59.9)),
    "chair": (("Alder chair", 119.0), ("Birch stool", 64.0), ("Cedar armchair", 249.0), ("Elm folding chair", 38.5), ("Fir office chair", 179.0)),
    "rug": (("Fjord rug", 99.0), ("Heather rug", 74.5), ("Juniper runner", 46.0), ("Sorrel rug", 132.0)),
    "headphones": (("Lyra headphones", 79.9), ("Mira earbuds", 49.0), ("Nova headset", 109.0), ("Orion headphones", 149.5)),
    "backpack": (("Pinnacle backpack", 69.0), ("Quill satchel", 84.0), ("Ridge daypack", 42.5), ("Summit backpack", 96.0)),
    "clock": (("Tide wall clock", 34.0), ("Umber alarm clock", 18.9), ("Vesper clock", 52.0)),
    "blanket": (("Willow blanket", 45.0), ("Yarrow throw", 33.0), ("Zephyr quilt", 88.0)),
    "pan": (("Acorn skillet", 36.0), ("Basil wok", 41.5), ("Clove saucepan", 27.9), ("Dill stockpot", 62.0)),
}  # fmt: skip

Status = Literal["pending", "shipped", "delivered", "cancelled", "return requested"]
OrderId = Annotated[str, Field(pattern=r"^W\d{5}$", description="Order number, such as 'W10234'.")]
CustomerId = Annotated[str, Field(description="Customer id, such as 'c_1042', as the look-ups return it.")]
ProductId = Annotated[str, Field(description="Product id, such as 'p_208'.")]


@dataclass(frozen=True)
class Customer(Row):
    id: str
    name: str
    email: str
    street: str
    city: str
    postcode: str
    pays_with: str
    gift_balance: float


@dataclass(frozen=True)
class Product(Row):
    id: str
    name: str
    category: str
    price: float
    stock: int


@dataclass(frozen=True)
class Item(Row):
    product_id: str
    name: str
    price: float


@dataclass(frozen=True)
class Order(Row):
    id: str
    customer_id: str
    status: Status
    items: tuple[Item, ...]
    total: float
    paid_with: str
    street: str
    city: str
    postcode: str
    placed_on: str
    delivered_on: str | None = None
    refund: float = 0.0
    refund_to: str | None = None
    cancel_reason: str | None = None


def total(items: tuple[Item, ...]) -> float:
    return round(sum(item.price for item in items), 2)


class StoreTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "store"
    policy = Path(__file__).parent / "policy.md"
    words = Path(__file__).parent / "words.yaml"
    departments = ("orders", "payments", "returns")

    customers: Table[Customer]
    products: Table[Product]
    orders: Table[Order]

    def build(self, rng: random.Random) -> None:
        for number, (category, goods) in enumerate(GOODS.items(), 1):
            for place, (label, price) in enumerate(goods):
                stock = rng.choice((0, 3, 8, 15, 40, 120))
                self.products.put(Product(f"p_{number}{place:02}", label, category, round(price * rng.choice((0.9, 1, 1.1)), 2), stock))
        for number, person in enumerate(people(rng, 70), 1001 + rng.randrange(50)):
            city, postcode = rng.choice(CITIES)
            pays = f"{rng.choice(('visa', 'mastercard', 'paypal'))}_{rng.randint(1000, 9999)}"
            email = f"{person.handle}{rng.randint(10, 99)}@example.com"
            gift = rng.choice((0.0, 0.0, 15.0, 40.0, 120.0))
            self.customers.put(Customer(f"c_{number}", person.name, email, street(rng), city, postcode, pays, gift))
        goods_list = list(self.products)
        number = rng.randint(10000, 60000)
        for customer in list(self.customers):
            for _ in range(rng.randint(1, 5)):
                number += rng.randint(1, 90)
                self.orders.put(self._order(rng, f"W{number}", customer, goods_list))

    def _order(self, rng: random.Random, id: str, customer: Customer, goods: list[Product]) -> Order:
        chosen = rng.sample(goods, rng.choice((1, 1, 2, 2, 3, 4)))
        items = tuple(Item(one.id, one.name, one.price) for one in chosen)
        placed = TODAY - timedelta(days=rng.randint(1, 80))
        statuses: tuple[Status, ...] = ("pending", "pending", "shipped", "delivered", "delivered")
        status = rng.choice(statuses)
        delivered = (placed + timedelta(days=rng.randint(2, 6))).isoformat() if status == "delivered" else None
        if delivered and delivered > TODAY.isoformat():
            delivered = TODAY.isoformat()
        return Order(
            id, customer.id, status, items, total(items), customer.pays_with,
            customer.street, customer.city, customer.postcode, placed.isoformat(), delivered,
        )  # fmt: skip

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        for row in changed:
            if isinstance(row, Order):
                if not row.items:
                    yield f"order {row.id} has no items"
                if abs(row.total - total(row.items)) > 0.005:
                    yield f"order {row.id}: the total is not the sum of its items"
                if row.refund > row.total + 0.005:
                    yield f"order {row.id}: the refund is larger than the total"
            if isinstance(row, Product) and row.stock < 0:
                yield f"product {row.id} would have a negative stock"
            if isinstance(row, Customer) and row.gift_balance < 0:
                yield f"customer {row.id} would have a negative gift balance"

    # --- tools ---

    @tool("read")
    def find_customer_by_email(
        self, email: Annotated[str, Field(json_schema_extra={"format": "email"}, description="E-mail of the account.")]
    ) -> Json:
        """Find a customer's account by e-mail address."""
        found = self.customers.where(email=email.lower())
        if not found:
            raise ToolError("not_found", f"no account with the e-mail {email!r}")
        return {"customer_id": found[0].id, "name": found[0].name}

    @tool("read")
    def find_customer_by_name(self, name: str, postcode: str) -> Json:
        """Find a customer's account by full name and postcode."""
        found = [one for one in self.customers.where(postcode=postcode) if one.name.lower() == name.lower()]
        if not found:
            raise ToolError("not_found", f"no account of {name!r} with the postcode {postcode!r}")
        return {"customer_id": found[0].id, "name": found[0].name}

    @tool("read")
    def get_customer(self, customer_id: CustomerId) -> Customer:
        """Address, payment method and gift balance of a customer."""
        return self.customers[customer_id]

    @tool("read")
    def list_orders(self, customer_id: CustomerId) -> Json:
        """All orders of a customer, newest first, with status and total."""
        customer = self.customers[customer_id]
        orders = sorted(self.orders.where(customer_id=customer.id), key=lambda one: (one.placed_on, one.id), reverse=True)
        return [
            {"order_id": o.id, "status": o.status, "placed_on": o.placed_on, "items": [i.name for i in o.items], "total": o.total}
            for o in orders
        ]  # fmt: skip

    @tool("read")
    def get_order(self, order_id: OrderId) -> Order:
        """Everything about one order: status, items, total, payment, address."""
        return self.orders[order_id]

    @tool("read")
    def search_products(
        self,
        category: Annotated[str, Field(description="One of: " + ", ".join(GOODS))],
        max_price: Annotated[float | None, Field(gt=0, description="Only products up to this price.")] = None,
    ) -> list[Product]:
        """Products of a category, cheapest first, with price and stock."""
        if category not in GOODS:
            raise ToolError("not_found", f"no category {category!r}; there are {', '.join(GOODS)}")
        found = [one for one in self.products.where(category=category) if max_price is None or one.price <= max_price]
        return sorted(found, key=lambda one: (one.price, one.id))

    @tool("read")
    def get_product(self, product_id: ProductId) -> Product:
        """Price and stock of one product."""
        return self.products[product_id]

    @tool("irreversible")
    def cancel_order(self, order_id: OrderId, reason: Literal["no longer needed", "ordered by mistake", "found elsewhere"]) -> Json:
        """Cancel a pending order for good. The total is refunded to its payment method."""
        order = self._pending(order_id)
        self.orders.update(order, status="cancelled", cancel_reason=reason, refund=order.total, refund_to=order.paid_with)
        return {"order_id": order.id, "status": "cancelled", "refund": order.total, "refund_to": order.paid_with}

    @tool("write")
    def change_address(self, order_id: OrderId, street: str, city: str, postcode: str) -> Json:
        """Send a pending order to another address."""
        order = self.orders.update(self._pending(order_id), street=street, city=city, postcode=postcode)
        return {"order_id": order.id, "street": street, "city": city, "postcode": postcode}

    @tool("write")
    def exchange_item(self, order_id: OrderId, old_product_id: ProductId, new_product_id: ProductId) -> Json:
        """In a pending order, replace an item by another product of the same category. The difference in price is
        charged or refunded."""
        order = self._pending(order_id)
        new, old = self.products[new_product_id], self.products[old_product_id]
        if old.id not in [item.product_id for item in order.items]:
            raise ToolError("not_found", f"order {order.id} has no item {old.id}")
        if new.category != old.category:
            raise ToolError("not_allowed", f"{new.name} is a {new.category}, not a {old.category}")
        if new.stock < 1:
            raise ToolError("not_allowed", f"{new.name} is out of stock")
        items = tuple(Item(new.id, new.name, new.price) if i.product_id == old.id else i for i in order.items)
        self.products.update(new, stock=new.stock - 1)
        changed = self.orders.update(order, items=items, total=total(items))
        return {"order_id": order.id, "new_total": changed.total, "difference": round(changed.total - order.total, 2)}

    @tool("irreversible")
    def request_return(
        self,
        order_id: OrderId,
        product_ids: Annotated[list[str], Field(min_length=1, description="The items to send back.")],
        refund_to: Literal["payment method", "gift balance"],
    ) -> Json:
        """Start the return of delivered items. The refund is booked at once."""
        order = self.orders[order_id]
        if order.status != "delivered" or order.delivered_on is None:
            raise ToolError("not_allowed", f"order {order.id} is {order.status}; only delivered orders can be returned")
        if date.fromisoformat(order.delivered_on) < TODAY - timedelta(days=RETURN_DAYS):
            raise ToolError("not_allowed", f"order {order.id} was delivered more than {RETURN_DAYS} days ago")
        prices = {item.product_id: item.price for item in order.items}
        missing = [one for one in product_ids if one not in prices]
        if missing:
            raise ToolError("not_found", f"order {order.id} has no item {missing[0]}")
        refund = round(sum(prices[one] for one in set(product_ids)), 2)
        self.orders.update(order, status="return requested", refund=refund, refund_to=refund_to)
        if refund_to == "gift balance":
            customer = self.customers[order.customer_id]
            self.customers.update(customer, gift_balance=round(customer.gift_balance + refund, 2))
        return {"order_id": order.id, "status": "return requested", "refund": refund, "refund_to": refund_to}

    @tool("irreversible")
    def place_order(
        self,
        customer_id: CustomerId,
        product_ids: Annotated[list[str], Field(min_length=1, description="One entry for each piece.")],
        pay_with: Literal["payment method", "gift balance"],
    ) -> Json:
        """Place an order to the customer's own address. It is charged at once."""
        customer = self.customers[customer_id]
        goods = [self.products[one] for one in product_ids]
        for one in goods:
            if one.stock < product_ids.count(one.id):
                raise ToolError("not_allowed", f"{one.name} is out of stock")
            self.products.update(one, stock=one.stock - product_ids.count(one.id))
        items = tuple(Item(one.id, one.name, one.price) for one in goods)
        if pay_with == "gift balance":
            if customer.gift_balance < total(items):
                raise ToolError("not_allowed", f"the gift balance of {customer.gift_balance} does not cover {total(items)}")
            self.customers.update(customer, gift_balance=round(customer.gift_balance - total(items), 2))
        paid = "gift balance" if pay_with == "gift balance" else customer.pays_with
        order = Order(
            self.orders.next_id("W", 10000), customer.id, "pending", items, total(items), paid,
            customer.street, customer.city, customer.postcode, TODAY.isoformat(),
        )  # fmt: skip
        self.orders.put(order)
        return {"order_id": order.id, "total": order.total, "paid_with": paid}

    def _pending(self, order_id: str) -> Order:
        order = self.orders[order_id]
        if order.status != "pending":
            raise ToolError("not_allowed", f"order {order.id} is {order.status}; only a pending order can be changed")
        return order
