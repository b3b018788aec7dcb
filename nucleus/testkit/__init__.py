"""The component authors' test kit: a component under test meets a real IPC socket, and the test is its whole world.

    def test_alarm_when_power_drops_then_published(marram_nucleus):
        app = marram_nucleus.component("com.example.App", configuration={"limit": 10})
        alarms = marram_nucleus.subscribe("alarms/#")
        app.start(sys.executable, "app.py")                 # a real process with the component's environment
        marram_nucleus.publish("power", {"kw": 3})          # a scripted event
        assert alarms.get()["kw"] == 3

Map: `plugin.py` the pytest fixture `marram_nucleus`; `nucleus.py` what the fixture is; `standins.py` supervisor, deployer and
cloud, which only remember; `faults.py` the switches (deny, fail, drop, slow); `clock.py` time that moves only when told.
In: nothing of the machine but a temporary folder. Real: the server, the broker, authorization, the configuration store,
consent and validation. Not here: lifecycle scripts, deployments, MQTT; for those run `marram nucleus run` (README).
Forbidden: sleeping; deciding by the wall clock.
"""
