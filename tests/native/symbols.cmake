# Fails if OBJECT, which is built for one instruction set, defines a symbol outside its NAMESPACE: the linker could keep
# that copy for other objects, and a CPU without the instruction set would run it.
execute_process(COMMAND ${NM} --demangle --defined-only --extern-only ${OBJECT} OUTPUT_VARIABLE symbols
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
if(NOT symbols)
  message(FATAL_ERROR "${OBJECT} defines nothing")
endif()
foreach(symbol IN LISTS symbols)
  if(NOT symbol MATCHES "${NAMESPACE}")
    message(SEND_ERROR "defined outside ${NAMESPACE}: ${symbol}")
  endif()
endforeach()
