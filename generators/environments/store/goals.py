"""What customers of the store come for."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.people import CITIES, street
from tracemill.generators.environments.store.tools import RETURN_DAYS, TODAY, Customer, Order, StoreTools
from tracemill.trace import Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")


class Store(StoreTools):
    def _identify(self, g: Draft, customer: Customer) -> None:
        """Half of the customers are found by e-mail, half by name and postcode; each way can stand in for the other."""
        name, postcode, email = customer.name, customer.postcode, customer.email
        g.subgoal("identify the customer", "the customer's id is known")
        why = "the account has to be found before any order is looked at"
        if g.rng.random() < 0.5:
            g.put(who=f"my e-mail is {email}")
            g.know(email=email, label="e-mail address")
            g.know(name=name, label="full name")
            g.know(postcode=postcode)
            other = ("find_customer_by_name", {"name": name, "postcode": postcode})
            g.call("find_customer_by_email", email=email, why=why, fallback=other)
        else:
            g.put(who=f"I'm {name}, postcode {postcode}")
            g.know(email=email, label="e-mail address")
            other = ("find_customer_by_email", {"email": email})
            g.call("find_customer_by_name", name=name, postcode=postcode, why=why, fallback=other)

    def _recent(self, order: Order) -> bool:
        return order.delivered_on is not None and date.fromisoformat(order.delivered_on) >= TODAY - timedelta(days=RETURN_DAYS)

    @goal(kinds=NO_PLAN)
    def order_status(self, g: Draft) -> None:
        """One call: where is my order?"""
        order = g.pick(self.orders)
        g.know(order_id=order.id, label="order number")
        g.put(status=order.status, total=order.total)
        g.call("get_order", order_id=order.id, why="the order's record holds its status")
        g.tell(order.status, order.total)

    @goal()
    def stop_order(self, g: Draft) -> None:
        """Find, look, confirm, cancel. In a third of the cases the order number must be asked for."""
        order = g.pick(o for o in self.orders if o.status == "pending")
        reason = g.rng.choice(("no longer needed", "ordered by mistake", "found elsewhere"))
        vague = g.rng.random() < 0.35
        g.know(order_id=order.id, label="order number", withheld=vague)
        g.know(reason=reason)
        if vague:
            g.variant("vague")
        self._identify(g, self.customers[order.customer_id])
        g.subgoal("make sure the order can be cancelled", "the order is seen to be pending")
        g.call("get_order", order_id=order.id, why="only a pending order can be cancelled")
        g.subgoal("cancel the order", "the order's status is cancelled and the refund is known")
        what = f"cancel order {order.id} and refund {order.total:.2f} to {order.paid_with}"
        g.call("cancel_order", order_id=order.id, reason=reason, why="the order is pending and the customer wants it gone", confirm=what)
        g.expect("orders", order.id, status="cancelled", cancel_reason=reason)
        g.put(total=f"{order.total:.2f}", paid_with=order.paid_with)
        g.tell(order.id, order.total)

    @goal()
    def redirect_order(self, g: Draft) -> None:
        """A pending order goes to another address; the street may have to be asked for."""
        order = g.pick(o for o in self.orders if o.status == "pending")
        city, postcode = g.pick(one for one in CITIES if one[1] != order.postcode)
        road = street(g.rng)
        vague = g.rng.random() < 0.4
        g.know(order_id=order.id, label="order number")
        g.know(street=road, label="new street address", withheld=vague)
        g.know(city=city, label="new city")
        g.know(new_postcode=postcode, label="new postcode")
        if vague:
            g.variant("vague")
        self._identify(g, self.customers[order.customer_id])
        g.subgoal("make sure the order can be changed", "the order is seen to be pending")
        g.call("get_order", order_id=order.id, why="only a pending order can go elsewhere")
        g.subgoal("change the address", "the order carries the new address")
        what = f"send order {order.id} to {road}, {city} {postcode}"
        g.call(
            "change_address",
            order_id=order.id,
            street=road,
            city=city,
            postcode=postcode,
            why="the order is still here and the new address is known",
            confirm=what,
        )
        g.expect("orders", order.id, street=road, city=city, postcode=postcode)
        g.tell(order.id, road)

    @goal()
    def swap_item(self, g: Draft) -> None:
        """Another product of the same kind, within a price; half of the time the limit comes only midway."""
        order = g.pick(o for o in self.orders if o.status == "pending")
        item = g.pick(order.items)
        old = self.products[item.product_id]
        others = [p for p in self.products.where(category=old.category) if p.stock > 0 and p.id not in [i.product_id for i in order.items]]
        g.need(len(others) >= 2)
        limit = float(int(g.pick(others).price) + 1)
        fitting = sorted((p for p in others if p.price <= limit), key=lambda p: (p.price, p.id))
        g.need(len(fitting) < len(others))
        new = fitting[-1]
        late = g.rng.random() < 0.5
        g.know(order_id=order.id, label="order number")
        g.put(item=old.name, category=old.category, limit=f"{limit:.0f}")
        self._identify(g, self.customers[order.customer_id])
        cap = g.constraint(f"the new {old.category} costs at most {limit:.0f}", f"{limit:.0f}")
        g.subgoal("look at the order", "the item and its price are known")
        g.call("get_order", order_id=order.id, why="the item to replace and the order's status are in its record")
        if late:
            g.variant("open")
            g.interject(f"One more thing: the new one must not cost more than {limit:.0f}.", constraint=cap)
        g.subgoal("find a fitting replacement", f"a {old.category} in stock at {limit:.0f} or less is chosen", constraints=[cap])
        g.call(
            "search_products",
            category=old.category,
            max_price=limit,
            why=f"the replacement has to be a {old.category} in stock within the limit",
        )
        g.subgoal("exchange the item", "the order holds the new item and the new total", constraints=[cap])
        what = f"replace the {old.name} in order {order.id} by the {new.name} at {new.price:.2f}"
        done = g.call(
            "exchange_item",
            order_id=order.id,
            old_product_id=old.id,
            new_product_id=new.id,
            why=f"the {new.name} is the best that is in stock within the limit",
            confirm=what,
        )
        items = [{"product_id": i.product_id, "name": i.name, "price": i.price} for i in self.orders[order.id].items]
        g.expect("orders", order.id, items=items, total=done["new_total"])
        g.expect("products", new.id, stock=new.stock - 1)
        g.put(new=new.name, new_total=f"{done['new_total']:.2f}")
        g.tell(new.name, done["new_total"])

    @goal()
    def return_items(self, g: Draft) -> None:
        """A return within the period. The order number is not known: it is found by the item."""
        order = g.pick(o for o in self.orders if o.status == "delivered" and self._recent(o))
        customer = self.customers[order.customer_id]
        item = g.pick(order.items)
        others = [o for o in self.orders.where(customer_id=customer.id) if o.id != order.id]
        g.need(all(item.name not in [i.name for i in o.items] for o in others))
        where = g.rng.choice(("payment method", "gift balance"))
        g.know(item=item.name)
        g.know(refund_to=where, label="refund method")
        self._identify(g, customer)
        g.subgoal("find the order", "the order that holds the item is known")
        g.call("list_orders", customer_id=customer.id, why=f"the order that holds the {item.name} has to be found")
        g.subgoal("make sure the item can be returned", "the order was delivered within the last 30 days")
        g.call("get_order", order_id=order.id, why="the delivery date decides whether a return is possible")
        rule = g.constraint(f"the refund goes to the {where}", where)
        g.subgoal("start the return", "the return is requested and the refund is known", constraints=[rule])
        what = f"return the {item.name} of order {order.id} and refund {item.price:.2f} to the {where}"
        g.call(
            "request_return",
            order_id=order.id,
            product_ids=[item.product_id],
            refund_to=where,
            why="the item was delivered in time and the customer wants to send it back",
            confirm=what,
        )
        g.expect("orders", order.id, status="return requested", refund=item.price, refund_to=where)
        if where == "gift balance":
            g.expect("customers", customer.id, gift_balance=round(customer.gift_balance + item.price, 2))
        g.put(order_id=order.id, refund=f"{item.price:.2f}")
        g.tell(order.id, item.price)

    @goal(kinds=("tool_call",))
    def refuse_shipped_cancel(self, g: Draft) -> None:
        """It has shipped already: cancelling must be declined."""
        order = g.pick(o for o in self.orders if o.status == "shipped")
        g.know(order_id=order.id, label="order number")
        self._identify(g, self.customers[order.customer_id])
        g.call("get_order", order_id=order.id, why="only a pending order can be cancelled")
        g.refuse()
        g.forbid("cancel_order", "the order has shipped")
        g.tell("shipped", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_late_return(self, g: Draft) -> None:
        """Delivered too long ago."""
        order = g.pick(o for o in self.orders if o.status == "delivered" and not self._recent(o))
        g.know(order_id=order.id, label="order number")
        self._identify(g, self.customers[order.customer_id])
        g.call("get_order", order_id=order.id, why="the delivery date decides whether a return is possible")
        g.refuse()
        g.forbid("request_return", "the period for returns is over")
        g.put(delivered_on=order.delivered_on)
        g.tell("30 days", CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        thing = g.rng.choice(("a discount for loyal customers", "a price match with another shop", "a new invoice for last year", "tips for investing my savings", "the weather in Oslo next week", "a poem for my mother's birthday"))  # fmt: skip
        g.put(thing=thing)
        g.refuse()
        g.tell(CANNOT)

    @goal()
    def compare_orders(self, g: Draft) -> None:
        """Independent look-ups, made in parallel, and a comparison."""
        rich = [c for c, n in Counter(o.customer_id for o in self.orders).items() if n >= 3]
        customer = self.customers[g.pick(rich)]
        orders = g.some(self.orders.where(customer_id=customer.id), g.rng.choice((2, 3)))
        g.need(len({o.total for o in orders}) == len(orders))
        ids = [o.id for o in orders]
        g.know(order_ids=", ".join(ids[:-1]) + " and " + ids[-1], label="order numbers")
        self._identify(g, customer)
        g.subgoal("read the orders", "the total of every order is known")
        with g.parallel():
            for order in orders:
                g.call("get_order", order_id=order.id, why=f"the total of {order.id} is in its record")
        g.subgoal("read the account", "the gift balance is known", after=["identify the customer"])
        g.call("get_customer", customer_id=customer.id, why="the gift balance is in the account")
        top = max(orders, key=lambda o: o.total)
        g.put(order_id=top.id, total=f"{top.total:.2f}", balance=f"{customer.gift_balance:.2f}")
        g.tell(top.id, top.total, customer.gift_balance)

    @goal()
    def keep_after_all(self, g: Draft) -> None:
        """Cancel, no, rather send it elsewhere: the user changes their mind once the order is on the table."""
        order = g.pick(o for o in self.orders if o.status == "pending")
        city, postcode = g.pick(one for one in CITIES if one[1] != order.postcode)
        road = street(g.rng)
        g.know(order_id=order.id, label="order number")
        self._identify(g, self.customers[order.customer_id])
        g.subgoal("look at the order", "the order is seen to be pending")
        g.call("get_order", order_id=order.id, why="the status decides what can be done with the order")
        keep = g.constraint(f"order {order.id} is kept, not cancelled", "not cancel")
        g.interject(f"Actually, don't cancel it. Please send it to {road}, {city} {postcode} instead.", constraint=keep, changes_goal=True)
        g.subgoal("send the order to the new address", "the order carries the new address", constraints=[keep])
        what = f"keep order {order.id} and send it to {road}, {city} {postcode}"
        g.call(
            "change_address",
            order_id=order.id,
            street=road,
            city=city,
            postcode=postcode,
            why="the customer now wants the order at another address",
            confirm=what,
        )
        g.forbid("cancel_order", "the customer no longer wants that")
        g.expect("orders", order.id, status="pending", street=road, city=city, postcode=postcode)
        g.put(street=road, city=city)
        g.tell(order.id, road)

    @goal()
    def move_house(self, g: Draft) -> None:
        """All pending orders to a new home: up to a dozen dependent calls."""
        waiting = Counter(o.customer_id for o in self.orders if o.status == "pending")
        customer = self.customers[g.pick(c for c, n in waiting.items() if n >= 2)]
        pending = [o for o in self.orders.where(customer_id=customer.id) if o.status == "pending"]
        city, postcode = g.pick(one for one in CITIES if one[1] != customer.postcode)
        road = street(g.rng)
        g.know(street=road, label="new street address")
        g.know(city=city, label="new city")
        g.know(new_postcode=postcode, label="new postcode")
        self._identify(g, customer)
        g.subgoal("find the pending orders", "the list of pending orders is known")
        g.call("list_orders", customer_id=customer.id, why="all orders that have not left yet have to be found")
        only = g.constraint("only pending orders are changed", "pending")
        g.subgoal("look at each pending order", "each is seen to be pending", constraints=[only])
        with g.parallel():
            for order in pending:
                g.call("get_order", order_id=order.id, why=f"{order.id} has to be seen before it is changed")
        g.subgoal("change every address", "each pending order carries the new address", constraints=[only])
        listed = ", ".join(o.id for o in pending)
        for number, order in enumerate(pending):
            what = f"send orders {listed} to {road}, {city} {postcode}" if number == 0 else ""
            g.call(
                "change_address",
                order_id=order.id,
                street=road,
                city=city,
                postcode=postcode,
                why=f"{order.id} is pending and goes to the new home",
                confirm=what,
            )
            g.expect("orders", order.id, street=road, city=city, postcode=postcode)
            g.tell(order.id)
        g.put(order_ids=listed)

    @goal()
    def buy_a_set(self, g: Draft) -> None:
        """Two products, paid by gift balance if it is enough: a choice that depends on what the look-ups say."""
        customer = g.pick(c for c in self.customers if c.gift_balance > 0)
        first, second = g.some(sorted({p.category for p in self.products if p.stock > 0}), 2)
        cheapest = [
            min((p for p in self.products.where(category=c) if p.stock > 0), key=lambda p: (p.price, p.id)) for c in (first, second)
        ]
        price = round(sum(p.price for p in cheapest), 2)
        pay = "gift balance" if customer.gift_balance >= price else "payment method"
        g.put(first=first, second=second)
        self._identify(g, customer)
        rule = g.constraint("the gift balance is used if it covers the whole price", "gift balance")
        g.subgoal("find the products and the balance", "the cheapest of each kind in stock and the balance are known")
        with g.parallel():
            g.call("search_products", category=first, why=f"the cheapest {first} in stock has to be found")
            g.call("search_products", category=second, why=f"the cheapest {second} in stock has to be found")
            g.call("get_customer", customer_id=customer.id, why="the gift balance decides how to pay")
        g.subgoal("place the order", "the order has a number and a total", constraints=[rule])
        what = f"order the {cheapest[0].name} and the {cheapest[1].name} for {price:.2f}, paid by {pay}"
        done = g.call("place_order", customer_id=customer.id, product_ids=[p.id for p in cheapest], pay_with=pay, why=f"both are in stock, and the {pay} is the right way to pay", confirm=what, check=("list_orders", {"customer_id": customer.id}))  # fmt: skip
        g.expect("orders", done["order_id"], customer_id=customer.id, total=price, paid_with=done["paid_with"], status="pending")
        for product in cheapest:
            g.expect("products", product.id, stock=product.stock - 1)
        if pay == "gift balance":
            g.expect("customers", customer.id, gift_balance=round(customer.gift_balance - price, 2))
        g.put(order_id=done["order_id"], total=f"{price:.2f}", pay=pay, names=f"the {cheapest[0].name} and the {cheapest[1].name}")
        g.tell(done["order_id"], price)
